"""`phalanx data ...`: what there is to know about a config's data."""

from pathlib import Path
from typing import Annotated, Literal

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


@app.command("prepare")
def prepare(
    raw: Annotated[
        str, typer.Argument(metavar="RAW", help="A folder with one folder of images a class, or a pattern of files.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the shards go; new, empty or unfinished.")],
    format: Annotated[
        Literal["images", "csv", "parquet", "lines", "tfrecord"] | None,
        typer.Option("--format", help="Of RAW; else by what it ends in."),
    ] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, max=99_999, help="Files to make; else one for each 128 MiB.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order.")] = 0,
    target: Annotated[str | None, typer.Option("--target", help="The column or feature to predict.")] = None,
    target_kind: Annotated[
        Literal["class", "number"], typer.Option("--target-kind", help="Of a table: classes, or a number.")
    ] = "class",
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="Of a table: those to keep; else all.")
    ] = None,
    context: Annotated[int, typer.Option("--context", min=1, help="Of lines: tokens of a record, less one.")] = 128,
    skip_damaged: Annotated[
        int, typer.Option("--skip-damaged", min=0, help="Most records that may be left out before it is refused.")
    ] = 0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="At once; else one a CPU.")] = None,
    on: Annotated[Literal["local", "ray"], typer.Option("--on", help="Where the workers run.")] = "local",
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="Of the Ray cluster; else one that runs here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn raw files into shuffled, indexed shards; after a kill, the same command goes on where it was."""
    import json

    from launch.data_preparation import describe_prepared, make_request, prepare_data
    from launch.exit_code import RequestError

    if address is not None and on != "ray":
        raise RequestError(f"--address {address} is that of a Ray cluster: add --on ray, or leave it out")
    chosen = tuple(name.strip() for name in columns.split(",")) if columns else None
    request = make_request(
        raw, format, shards, seed=seed, target=target, target_kind=target_kind, columns=chosen, context=context
    )
    found = prepare_data(request, folder, most_damaged=skip_damaged, workers=workers, on=on, address=address)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else describe_prepared(found))
