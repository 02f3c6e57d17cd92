"""`phalanx check CONFIG`: everything that can be tried before a run is started."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from launch.run_config import RunConfig


def check(
    config: Annotated[Path, typer.Argument(help="YAML file, such as configs/mnist.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings that replace the file's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    tpu: Annotated[
        str | None,
        typer.Option(metavar="TOPOLOGY", help="Compile the step for a Cloud TPU slice, such as v5e:2x2, instead."),
    ] = None,
    tpu_limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For the compiler of TPUs.")] = 900.0,
    tpu_quick: Annotated[
        bool, typer.Option("--tpu-quick", help="Compile for it at the lowest level: faster, temporaries overstated.")
    ] = False,
    tpu_search: Annotated[bool, typer.Option(help="Look for the largest batch that fits the slice.")] = True,
) -> int:
    """Try data, model and steps, and estimate memory, checkpoint size and speed; writes nothing."""
    import json

    from launch.config import load_config
    from launch.exit_code import exit_code_of, explanation_of

    try:
        run_config = load_config(config, overrides or ())
        if tpu is not None:
            return _check_for_tpu(run_config, tpu, tpu_limit, tpu_search, tpu_quick, as_json)
        return _try_out(run_config, as_json)
    except Exception as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"ok": False, "problems": explanation_of(error).splitlines()}, indent=2))
        return exit_code_of(error)


def _try_out(run_config: "RunConfig", as_json: bool) -> int:
    import json

    from launch.exit_code import ExitCode
    from launch.preflight import describe, try_out

    found = try_out(run_config)
    if as_json:
        typer.echo(json.dumps({"ok": not found.problems, **found.as_json()}, indent=2))
    else:
        typer.echo(describe(found))
    return ExitCode.NO_RESOURCES if found.problems else ExitCode.DONE


def _check_for_tpu(
    run_config: "RunConfig", topology: str, limit_s: float, search: bool, quick: bool, as_json: bool
) -> int:
    import json

    from launch.exit_code import ExitCode
    from launch.tpu_check.check import check_for_tpu
    from launch.tpu_check.verdict import describe

    verdict = check_for_tpu(run_config, topology, limit_s, search, quick)
    if as_json:
        typer.echo(json.dumps({"ok": verdict.ok, "tpu": verdict.as_json()}, indent=2))
    else:
        typer.echo(describe(verdict))
    if verdict.ok:
        return ExitCode.DONE
    return ExitCode.NO_RESOURCES if verdict.hbm else ExitCode.WRONG_REQUEST
