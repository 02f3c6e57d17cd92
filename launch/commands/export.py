"""`phalanx export RUN`: the SavedModel of a run, written from its newest checkpoint."""

from typing import Annotated

import typer


def export(run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")]) -> None:
    """Write the SavedModel of a run again, from its newest good checkpoint."""
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
