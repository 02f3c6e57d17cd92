"""`phalanx logs RUN`: what the processes of a run have written."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trainer.run_folder import RunFolder


def logs(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    all_generations: Annotated[
        bool, typer.Option("--all", help="Of every start of the run, not only the latest.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on, until the run ends.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Only this many last lines of each file; 0: all.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="What happened instead, one JSON object a line: events and metrics.")
    ] = False,
) -> None:
    """Print the log files of a run."""
    from launch.exit_code import RequestError
    from launch.log_following import follow_logs
    from launch.run_log import launcher_log, log_files
    from launch.run_lookup import run_named

    folder = run_named(run)
    if as_json:
        _show_events(folder, follow, lines)
        return
    if follow:
        follow_logs(folder, typer.echo, lines)
        return
    generations = log_files(folder.logs)
    if not generations and launcher_log(folder.logs).exists():
        generations = [[launcher_log(folder.logs)]]  # it has ended before it had workers
    if not generations:
        raise RequestError(f"{folder.path} has no logs: it has not been started yet")
    for paths in generations if all_generations else generations[-1:]:
        for path in paths:
            text = path.read_text(encoding="utf-8", errors="replace").splitlines()
            typer.echo(f"== {path}")
            for line in text[-lines:] if lines else text:
                typer.echo(line)


def _show_events(folder: "RunFolder", follow: bool, last: int) -> None:
    from launch.cloud_log import RunEvents, follow_events

    if follow:
        # A collector reads them from a pipe, which would keep back what has not filled it.
        follow_events(folder, lambda line: print(line, flush=True), last)
        return
    for line in list(RunEvents(folder).read())[-last:]:
        print(line)
