"""`phalanx status RUN`: how far a run is."""

from typing import Annotated

import typer


def status(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> None:
    """Show the state, the progress and the latest metrics of a run."""
    import json

    from launch.run_lookup import run_named
    from launch.run_status import describe, read_status

    found = read_status(run_named(run).path)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else describe(found))
