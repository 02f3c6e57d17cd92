"""`phalanx stop RUN`: ends a run that is going on, with its state saved."""

from typing import Annotated

import typer


def stop(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait until the state is saved.")] = 120.0,
) -> int:
    """Ask a run to save its state and stop, and wait until it has."""
    import signal

    from cluster.process import send_signal, wait_until_gone
    from cluster.run_lock import read_holder
    from launch.exit_code import ExitCode, RequestError
    from launch.run_lookup import run_named

    folder = run_named(run).path
    holder = read_holder(folder)
    if holder is None:
        raise RequestError(f"{folder} is not running: there is nothing to stop")
    send_signal(holder.process, signal.SIGTERM)
    if not wait_until_gone(holder.process, timeout):
        typer.echo(
            f"phalanx: process {holder.process.pid} still runs {timeout:g} s after the request to stop: "
            "wait longer with --timeout, or look at phalanx logs",
            err=True,
        )
        return ExitCode.FAILED
    typer.echo(f"stopped {folder}; phalanx resume {folder} goes on")
    return ExitCode.DONE
