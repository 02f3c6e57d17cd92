"""`phalanx logs RUN`: what the processes of a run have written."""

from typing import Annotated

import typer


def logs(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    all_generations: Annotated[
        bool, typer.Option("--all", help="Of every start of the run, not only the latest.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Only this many last lines of each file; 0: all.")] = 0,
) -> None:
    """Print the log files of a run."""
    from launch.exit_code import RequestError
    from launch.run_log import log_files
    from launch.run_lookup import run_named

    folder = run_named(run)
    generations = log_files(folder.logs)
    if not generations:
        raise RequestError(f"{folder.path} has no logs: it has not been started yet")
    for paths in generations if all_generations else generations[-1:]:
        for path in paths:
            text = path.read_text(encoding="utf-8", errors="replace").splitlines()
            typer.echo(f"== {path}")
            for line in text[-lines:] if lines else text:
                typer.echo(line)
