"""`phalanx replay RUN`: runs the supervisor again over a run's journal and compares what it decides."""

from typing import Annotated

import typer


def replay(run: Annotated[str, typer.Argument(help="Run folder, its name in runs/, or a journal.jsonl.")]) -> int:
    """Decide again what a run's journal recorded, and say where today's decisions differ."""
    from pathlib import Path

    from cluster.supervisor.journal_replay import first_difference
    from launch.exit_code import ExitCode, RequestError
    from launch.run_lookup import run_named
    from trainer.observe.journal import read_journal

    path = Path(run) if Path(run).is_file() else run_named(run).journal
    records = read_journal(path)
    num_commands = sum(record["event"] == "command" for record in records)
    if not num_commands:
        raise RequestError(f"{path} records no commands: only a run with several workers has a supervisor")
    difference = first_difference(records)
    if difference is not None:
        typer.echo(str(difference))
        return ExitCode.FAILED
    typer.echo(f"{path}: all {num_commands} commands are given again")
    return ExitCode.DONE
