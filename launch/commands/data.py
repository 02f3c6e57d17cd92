"""`phalanx data ...`: what there is to know about a config's data."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Measure the data of a config.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Measure the data of a config."""


@app.command("bench")
def bench(
    config: Annotated[Path, typer.Argument(help="YAML file, such as configs/mnist.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings that replace the file's.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each stage is measured.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> None:
    """Measure samples/s of each stage of the input, and whether the model would wait for it."""
    import json

    from launch.config import load_config
    from launch.data_speed import describe_speed, measure_data

    found = measure_data(load_config(config, overrides or ()), seconds)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else describe_speed(found))
