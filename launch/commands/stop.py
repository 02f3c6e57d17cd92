"""`phalanx stop RUN`: ends a run that is going on, with its state saved."""

from typing import Annotated

import typer


def stop(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait until the state is saved.")] = 120.0,
) -> int:
    """Ask a run to save its state and stop, and wait until it has."""
    import contextlib
    import signal
    import socket
    import time

    from cluster.process import NoSuchProcess, send_signal
    from cluster.run_lock import KEEPING, read_holder
    from launch.exit_code import ExitCode, RequestError
    from launch.run_lookup import run_named
    from launch.stop_file import StopFile

    folder = run_named(run).path
    holder, keeper = read_holder(folder), read_holder(folder, KEEPING)
    if holder is None and keeper is None:
        raise RequestError(f"{folder} is not running: there is nothing to stop")
    request = StopFile(folder)
    if keeper is not None or (holder is not None and not holder.process.is_local):
        request.write(f"phalanx stop on {socket.gethostname()}")
    if holder is not None and holder.process.is_local:
        # At once, where that is possible. It may have died meanwhile: its keeper sees the file.
        with contextlib.suppress(NoSuchProcess):
            send_signal(holder.process, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while busy := read_holder(folder) or read_holder(folder, KEEPING):
        if time.monotonic() > deadline:
            typer.echo(
                f"phalanx: process {busy.process.pid} on {busy.process.host} still runs {timeout:g} s after the "
                "request to stop: wait longer with --timeout, or look at phalanx logs",
                err=True,
            )
            return ExitCode.FAILED
        time.sleep(0.05)
    request.clear()
    typer.echo(f"stopped {folder}; phalanx resume {folder} goes on")
    return ExitCode.DONE
