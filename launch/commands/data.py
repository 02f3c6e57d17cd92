"""`phalanx data ...`: what there is to know about a config's data."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="YAML file, such as configs/mnist.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings that replace the file's.")
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples", min=1, metavar="N", help="Most to read, evenly by position; 500000 of few numbers unless given."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]

app = typer.Typer(
    help="Look at the data of a config, hold them against rules, measure their speed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def data() -> None:
    """Look at the data of a config, hold them against rules, measure their speed."""


@app.command("bench")
def bench(
    config: ConfigFile,
    overrides: Overrides = None,
    seconds: Annotated[float, typer.Option(help="How long each stage is measured.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Measure samples/s of each stage of the input, and whether the model would wait for it."""
    import json

    from launch.config import load_config
    from launch.data_speed import describe_speed, measure_data

    found = measure_data(load_config(config, overrides or ()), seconds)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else describe_speed(found))


@app.command("inspect")
def inspect(
    config: ConfigFile,
    overrides: Overrides = None,
    samples: Samples = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where to write; without it, the run folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what each feature holds, the rules that follow, and an HTML page of distributions."""
    import json

    from launch.config import load_config
    from launch.data_inspection import describe_inspection, inspect_data

    found = inspect_data(load_config(config, overrides or ()), samples, out)
    if as_json:
        files = {"file": str(found.file), "page": str(found.page)}
        typer.echo(json.dumps(found.inspection.model_dump(mode="json") | files, indent=2))
    else:
        typer.echo(describe_inspection(found))


@app.command("validate")
def validate(
    config: ConfigFile,
    overrides: Overrides = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="Of phalanx data inspect; without it, that in the run folder."),
    ] = None,
    samples: Samples = None,
    as_json: AsJson = False,
) -> int:
    """Name every record that breaks the rules of an inspection; exit code 2 if there is one."""
    import json

    from launch.config import load_config
    from launch.data_inspection import describe_validation, validate_data
    from launch.exit_code import ExitCode

    found = validate_data(load_config(config, overrides or ()), samples, against)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else describe_validation(found))
    return ExitCode.DONE if found.ok else ExitCode.WRONG_REQUEST
