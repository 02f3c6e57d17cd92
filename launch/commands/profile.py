"""`phalanx profile RUN`: what TensorFlow's profiler sees of the next steps of a run that is going on."""

from typing import Annotated

import typer

_LOOK_S = 0.2


def profile(
    run: Annotated[str, typer.Argument(help="Run folder, or its name in runs/.")],
    steps: Annotated[int, typer.Option(min=1, help="How many steps; whole calls of the inner loop are taken.")] = 20,
    rank: Annotated[int, typer.Option(min=0, help="Of the worker to look at; 0 is the chief.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until the profile is written.")] = 120.0,
) -> int:
    """Profile the next steps of a run that is going on, without stopping it."""
    import time

    from cluster.run_lock import read_holder
    from launch.exit_code import ExitCode, RequestError
    from launch.profile_file import ProfileFile, ProfileRequest
    from launch.run_lookup import run_named

    folder = run_named(run)
    if read_holder(folder.path) is None:
        raise RequestError(f"{folder.path} is not running: a profile is taken of steps that are still to come")
    written = folder.profile(rank)
    before = set(written.rglob("*.xplane.pb"))
    request = ProfileFile(folder.path)
    request.write(ProfileRequest(steps, rank))
    deadline = time.monotonic() + timeout
    while not (new := set(written.rglob("*.xplane.pb")) - before):
        if time.monotonic() > deadline or read_holder(folder.path) is None:
            request.clear()
            typer.echo(
                f"phalanx: {folder.path} has written no profile of rank {rank}: it has ended, its steps take longer "
                f"than --timeout {timeout:g} s, or it has no such worker; look at phalanx status and phalanx logs",
                err=True,
            )
            return ExitCode.FAILED
        time.sleep(_LOOK_S)
    typer.echo(f"profile written to {sorted(new)[0]}")
    typer.echo(f"open it with: tensorboard --logdir {written}")
    return ExitCode.DONE
