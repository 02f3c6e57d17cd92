"""`phalanx report RUN`: one self-contained HTML page about a run."""

from typing import Annotated

import typer


def report(run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")]) -> None:
    """Write report.html into the run folder."""
    from launch.run_lookup import run_named
    from trainer.report import write_report

    typer.echo(write_report(run_named(run).path))
