"""`phalanx train CONFIG`: the main job, from a config to a SavedModel."""

from pathlib import Path
from typing import Annotated

import typer

ACCEPT_HELP = "Go on with a run although its config has changed."
DETACH_HELP = "Go on without this terminal; a launcher that dies is started again."


def train(
    config: Annotated[Path, typer.Argument(help="YAML file, such as configs/mnist.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings that replace the file's.")
    ] = None,
    accept_config_change: Annotated[bool, typer.Option("--accept-config-change", help=ACCEPT_HELP)] = False,
    detach: Annotated[bool, typer.Option("--detach", help=DETACH_HELP)] = False,
) -> int:
    """Train a model; a run that has begun already goes on where it was."""
    from launch.config import load_config

    found = load_config(config, overrides or ())
    if detach:
        from launch.detached.start import start_detached

        return start_detached(found, accept_config_change=accept_config_change)
    from launch.training_run import carry_out

    return carry_out(found, accept_config_change=accept_config_change)
