"""One process at a time changes a model's entry in a repository, on all machines that share the folder.

The lock is flock(2), which the kernel gives back when its holder dies; NFS since version 4 and most cluster file
systems carry it between machines.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delivery.repository.refusal import RepositoryConflict

PATIENCE_S = 60.0
_LOOK_S = 0.01


@contextmanager
def held(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Holds the lock meanwhile.

    Raises:
        RepositoryConflict: Another process has not given it back in time.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = time.monotonic() + patience_s
        while not try_lock(descriptor):
            if time.monotonic() > end:
                raise RepositoryConflict(
                    f"another process has been changing {path.parent.parent} for {patience_s:.0f} s: try again"
                )
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Takes the lock of an open file, if nobody has it; it is held until the file is closed or the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
