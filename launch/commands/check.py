"""`phalanx check CONFIG`: everything that can be tried before a run is started."""

from pathlib import Path
from typing import Annotated

import typer


def check(
    config: Annotated[Path, typer.Argument(help="YAML file, such as configs/mnist.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings that replace the file's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> int:
    """Try data, model and steps, and estimate memory, checkpoint size and speed; writes nothing."""
    import json

    from launch.config import load_config
    from launch.exit_code import ExitCode, exit_code_of, explanation_of

    try:
        from launch.preflight import describe, try_out

        found = try_out(load_config(config, overrides or ()))
    except Exception as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"ok": False, "problems": explanation_of(error).splitlines()}, indent=2))
        return exit_code_of(error)
    if as_json:
        typer.echo(json.dumps({"ok": not found.problems, **found.as_json()}, indent=2))
    else:
        typer.echo(describe(found))
    return ExitCode.NO_RESOURCES if found.problems else ExitCode.DONE
