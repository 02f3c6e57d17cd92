"""`phalanx export RUN`: the package of a run, written from one of its checkpoints; shrunken models of it."""

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.export_litert import LITERT_OPTIONS, export_to


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
    to: Annotated[str, typer.Option("--to", help="saved_model; litert for phones and the edge; web.")] = "saved_model",
    quantize: Annotated[list[str] | None, LITERT_OPTIONS["quantize"]] = None,
    prune: Annotated[float | None, LITERT_OPTIONS["prune"]] = None,
    cluster: Annotated[int | None, LITERT_OPTIONS["cluster"]] = None,
    sparse: Annotated[str | None, LITERT_OPTIONS["sparse"]] = None,
    fine_tune: Annotated[float, LITERT_OPTIONS["fine_tune"]] = 10.0,
    budget: Annotated[str | None, LITERT_OPTIONS["budget"]] = None,
    keep: Annotated[float, LITERT_OPTIONS["keep"]] = 0.95,
    runtime: Annotated[str | None, LITERT_OPTIONS["runtime"]] = None,
    litert_js: Annotated[str | None, LITERT_OPTIONS["litert_js"]] = None,
    tf_js: Annotated[str | None, LITERT_OPTIONS["tf_js"]] = None,
) -> None:
    """Write a run's model as a package: SavedModel, warm-up, model card, training sample, manifest; or small models."""
    if to != "saved_model" and (checkpoint != "last" or ema is not None or version != 1 or name or key):
        from launch.exit_code import RequestError

        raise RequestError(
            f"--checkpoint, --ema, --version, --name and --key are for --to saved_model, not {to}: leave them out"
        )
    quantizations = quantize or []
    if export_to(to, run, quantizations, prune, fine_tune, budget, keep, litert_js, cluster, sparse, runtime, tf_js):
        return
    import sys

    from cluster.run_lock import RunLock
    from delivery.package.manifest import check_model_name
    from delivery.package.signing_keys import read_signing_key
    from launch.checkpoint_choice import checkpoint_choice
    from launch.config import load_config
    from launch.quiet_start import import_tensorflow
    from launch.run_lookup import run_named

    choice = checkpoint_choice(checkpoint)
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
