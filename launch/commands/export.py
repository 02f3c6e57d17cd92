"""`phalanx export RUN`: the SavedModel of a run, written from its newest checkpoint; shrunken models of it."""

from typing import Annotated

import typer

from launch.commands.export_litert import LITERT_OPTIONS, export_to


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    to: Annotated[str, typer.Option("--to", help="saved_model; litert for phones and the edge; web.")] = "saved_model",
    quantize: Annotated[list[str] | None, LITERT_OPTIONS["quantize"]] = None,
    prune: Annotated[float | None, LITERT_OPTIONS["prune"]] = None,
    fine_tune: Annotated[float, LITERT_OPTIONS["fine_tune"]] = 10.0,
    budget: Annotated[str | None, LITERT_OPTIONS["budget"]] = None,
    keep: Annotated[float, LITERT_OPTIONS["keep"]] = 0.95,
    litert_js: Annotated[str | None, LITERT_OPTIONS["litert_js"]] = None,
) -> None:
    """Write the SavedModel of a run again, from its newest good checkpoint, or make small models of it."""
    if export_to(to, run, quantize or [], prune, fine_tune, budget, keep, litert_js):
        return
    import sys

    from cluster.run_lock import RunLock
    from launch.config import load_config
    from launch.quiet_start import import_tensorflow
    from launch.run_lookup import run_named

    folder = run_named(run)
    config = load_config(folder.config)
    with RunLock(folder.path, sys.argv):
        import_tensorflow()
        from delivery.run_export import export_run

        result = export_run(config, folder)
    typer.echo(f"{result.path}  differs from the trained model by at most {result.largest_difference:.1e}")
