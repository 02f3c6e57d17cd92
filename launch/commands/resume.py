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
    from launch.config import load_config
    from launch.run_lookup import run_named
    from launch.training_run import carry_out
    from trainer.config.place import PlaceConfig

    folder = run_named(run)
    config = load_config(folder.config, overrides or ())
    if config.run.folder.resolve() != folder.path.resolve():
        # The folder has been moved or renamed since it wrote its config, or the command is typed elsewhere.
        place = PlaceConfig.model_construct(dir=str(folder.path.parent), name=folder.path.name)
        config = config.model_copy(update={"run": place})
    if detach:
        from launch.detached.start import start_detached

        return start_detached(config, accept_config_change=accept_config_change)
    return carry_out(config, accept_config_change=accept_config_change, is_kept=kept)
