"""`phalanx resume RUN`: goes on with a run that was stopped or killed."""

from typing import Annotated

import typer

from launch.commands.train import ACCEPT_HELP, DETACH_HELP


def resume(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings to change.")
    ] = None,
    accept_config_change: Annotated[bool, typer.Option("--accept-config-change", help=ACCEPT_HELP)] = False,
    detach: Annotated[bool, typer.Option("--detach", help=DETACH_HELP)] = False,
    kept: Annotated[bool, typer.Option("--kept", hidden=True)] = False,
) -> int:
    """Go on with a run from its newest good checkpoint."""
    from launch.config import config_of_run
    from launch.run_lookup import run_named
    from launch.training_run import carry_out

    config = config_of_run(run_named(run), overrides or ())
    if detach:
        from launch.detached.start import start_detached

        return start_detached(config, accept_config_change=accept_config_change)
    return carry_out(config, accept_config_change=accept_config_change, is_kept=kept)
