"""`phalanx release NAME --to production`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.repository import DEFAULT, Repository, repository_at
from launch.exit_code import ExitCode


def release(
    name: Annotated[str, typer.Argument(help="Of the model.")],
    to: Annotated[str, typer.Option("--to", help="Alias to move, as production.")],
    gates: Annotated[Path, typer.Option("--gates", help="YAML file of the gates.")],
    key: Annotated[
        list[Path], typer.Option("--key", help="Public key that may sign, or a folder of them; several times.")
    ],
    repository: Repository = DEFAULT,
    version: Annotated[
        int | None, typer.Option("--version", help="By default that of the alias staging, else the newest.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write the Markdown report here as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Ask every gate about a version, and move the alias to it if none refuses (exit code 1 if one does)."""
    from delivery.package.signing_keys import read_keyring
    from delivery.release.gates_file import read_gates
    from launch.quiet_start import import_tensorflow

    wanted, keyring = read_gates(gates), read_keyring(key)
    import_tensorflow()
    from delivery.release import release_report
    from delivery.release.release import release as release_version
    from trainer.atomic_file import write_whole

    models = repository_at(repository)
    result = release_version(models, name, to, wanted, keyring, version=version)
    kept = release_report.keep_report(models, result)
    if report is not None:
        write_whole(report, release_report.as_markdown(result))
    if as_json:
        typer.echo(json.dumps({**release_report.as_document(result), "report": kept}))
    else:
        typer.echo(release_report.as_text(result))
        typer.echo(f"  report  {kept}")
    return ExitCode.DONE if result.is_released else ExitCode.FAILED
