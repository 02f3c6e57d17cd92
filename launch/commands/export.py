"""`phalanx export RUN`: the package of a run, written from one of its checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from delivery.run_export import CheckpointChoice


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="last, best (by checkpoint.best_metric), or a step.")
    ] = "last",
    ema: Annotated[
        bool | None, typer.Option("--ema/--no-ema", help="Export the averaged weights; by default as the config says.")
    ] = None,
    version: Annotated[int, typer.Option("--version", min=1, help="Names the folder; replaces an export there.")] = 1,
    name: Annotated[str | None, typer.Option("--name", help="Of the model; by default that of the run.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Private key that signs the package.")] = None,
) -> None:
    """Write a run's model as a package: SavedModel, warm-up, model card, training sample, manifest."""
    import sys

    from cluster.run_lock import RunLock
    from delivery.package.manifest import check_model_name
    from delivery.package.signing_keys import read_signing_key
    from launch.config import load_config
    from launch.quiet_start import import_tensorflow
    from launch.run_lookup import run_named

    choice = _choice(checkpoint)
    signing_key = read_signing_key(key) if key else None
    if name is not None:
        check_model_name(name)
    folder = run_named(run)
    config = load_config(folder.config)
    with RunLock(folder.path, sys.argv):
        import_tensorflow()
        from delivery.run_export import export_run

        result = export_run(config, folder, version=version, name=name, checkpoint=choice, ema=ema, key=signing_key)
    typer.echo(f"{result.path}  differs from the trained model by at most {result.largest_difference:.1e}")
    if signing_key is not None:
        typer.echo(f"  signed with {signing_key.public.name} ({signing_key.public.id})")


def _choice(text: str) -> "CheckpointChoice":
    from launch.exit_code import RequestError

    if text == "last" or text == "best":
        return text
    if not text.isascii() or not text.isdigit():
        raise RequestError(f"--checkpoint={text} must be last, best or a step: choose one of them")
    return int(text)
