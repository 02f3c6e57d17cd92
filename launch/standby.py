"""How a standby uses the time until its part comes: it rehearses the training that it may have to go on with."""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.process import identity_of
from cluster.worker_link import WorkerLink
from launch.config import RunConfig
from launch.exit_code import explanation_of

# Workers of the first generation get their parts as soon as the slowest of them has started.
_BEFORE_S = 2.0
# Below this a rehearsal might take the memory that the members of the generation need.
_LEAST_MEMORY = 2 << 30
_MOST_DEATHS = 3
_MARK = "rehearsal-"
_TURN = "rehearsals.lock"
_LOOK_S = 0.1


def wait_well(link: WorkerLink, config: RunConfig, marks: Path) -> None:
    """Returns when an order has come. Meanwhile the training is rehearsed, if that helps and there is memory for it.

    What goes wrong in a rehearsal is said in the worker's log and has no consequence: if it goes wrong again in the
    training itself, it is that one's error. The standbys of a host rehearse one after the other, so that at most one
    core is taken from the members.

    Args:
        link: to the agent.
        config: of the run.
        marks: folder in this host's memory, in which standbys that died in a rehearsal are counted: after some of them
            nobody tries any more.
    """
    if link.wait_for_order(_BEFORE_S) or not config.cluster.rehearse:
        return
    from trainer.rehearsal import can_rehearse

    if not can_rehearse(config, config.cluster.max_workers):
        return
    try:
        marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _turn(marks / _TURN, link) as has_come:
            if has_come:
                _rehearse(link, config, marks)
    except OSError as error:
        _say(f"no rehearsal: {explanation_of(error)}")


def _rehearse(link: WorkerLink, config: RunConfig, marks: Path) -> None:
    from trainer.rehearsal import Interrupted, rehearse

    free = free_memory()
    if free is not None and free < _LEAST_MEMORY:
        _say(f"no rehearsal: only {free >> 20} MiB of memory are free")
        return
    if len(_dead(marks)) >= _MOST_DEATHS:
        _say(f"no rehearsal: {_MOST_DEATHS} standbys have died in theirs")
        return
    began = time.monotonic()
    link.progressed(0, 0, "rehearse")
    mark = marks / f"{_MARK}{os.getpid()}"
    mark.touch()
    try:
        rehearse(config, config.cluster.max_workers, lambda: link.has_order, free)
        import delivery.run_export  # noqa: F401  somebody will wait for that, too
    except Interrupted as why:
        _say(f"the rehearsal ended early after {time.monotonic() - began:.1f} s: {why}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also a user's sys.exit()
        _say(f"the rehearsal failed: {explanation_of(error)}")
    else:
        _say(f"rehearsed in {time.monotonic() - began:.1f} s")
        for dead in _dead(marks):
            dead.unlink(missing_ok=True)
    finally:
        mark.unlink(missing_ok=True)
    link.progressed(0, 0, "standby")


@contextlib.contextmanager
def _turn(path: Path, link: WorkerLink) -> Iterator[bool]:
    """Waits until no other standby of the host rehearses; gives False when an order has come before."""
    with path.open("ab") as file:
        has_come = False
        while not has_come and not link.has_order:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                has_come = True
            except BlockingIOError:
                link.wait_for_order(_LOOK_S)
        yield has_come


def free_memory() -> int | None:
    """Bytes of this machine's memory that processes may still take; None where the kernel does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _dead(marks: Path) -> list[Path]:
    """The marks of processes that have ended in the middle of a rehearsal."""
    found = marks.glob(f"{_MARK}*")
    return [mark for mark in found if identity_of(int(mark.name.removeprefix(_MARK))) is None]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
