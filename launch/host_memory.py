"""Where a run keeps snapshots: files in this machine's memory, which outlive the processes that write them."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from cluster.assignment import Assignment

# Tells a worker which host of a cluster it is on, where several may be on one machine.
HOST = "PHALANX_HOST"

_MEMORY = Path("/dev/shm")
# A launcher that takes over comes long before that, and the guardian of an agent that goes touches the folder.
_ABANDONED_S = 3600.0


class HostMemory:
    """The memory of one run on this machine.

    Args:
        run: the run folder.
        host: the host of a cluster that it belongs to; with none, all hosts that this machine plays share it.
    """

    def __init__(self, run: Path, host: str = "") -> None:
        place = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        # By path, so that two runs of one name do not meet, and by user, so that nobody else's folder is in the way.
        digest = hashlib.sha256(f"{run.resolve()}{host and chr(0)}{host}".encode()).hexdigest()[:16]
        self._names = f"phalanx-{os.getuid()}-"
        self.folder = place / f"{self._names}{digest}"

    def snapshot(self, host: str) -> Path:
        """The snapshot of a host's workers: the state is the same in all of them."""
        return self.folder / f"{host}.snapshot"

    def hosts(self) -> list[str]:
        """The hosts that have a snapshot here."""
        return sorted(path.stem for path in self.folder.glob("*.snapshot"))

    def held(self, host: str) -> list[tuple[int, int]]:
        """Generation and step of each whole snapshot of a host, oldest first. Nobody writes them any more."""
        from trainer.snapshot.file import held_snapshots

        held = held_snapshots(self.snapshot(host))
        return [(metadata["generation"], step) for step, metadata in held if "generation" in metadata]

    def create(self, keep: Collection[str] = ()) -> None:
        """Makes the folder, for this user alone, and forgets what another launch has left in it.

        What runs have left here that were killed together with their agents' guardians is removed as well, for it is
        the machine's memory.

        Args:
            keep: the hosts whose snapshots stay.
        """
        self._remove_abandoned()
        if not keep:
            self.clear()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for host in self.hosts():
            if host not in keep:
                self.lose(host)

    def lose(self, host: str) -> None:
        """Gives the memory of a host back that is gone: what another machine held would be gone, too."""
        self.snapshot(host).unlink(missing_ok=True)

    def clear(self) -> None:
        """Gives the memory back."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        for folder in self.folder.parent.glob(f"{self._names}*"):
            with contextlib.suppress(OSError):  # it is in use, or has been removed meanwhile
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if time.time() - os.fstat(descriptor).st_mtime > _ABANDONED_S:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the guardians of agents share it
                        shutil.rmtree(folder)
                finally:
                    os.close(descriptor)


def takes_snapshots(assignment: Assignment) -> bool:
    """Whether this member writes its host's snapshot: the first of those that run there."""
    itself = assignment.itself
    return itself.rank == min(member.rank for member in assignment.members if member.host == itself.host)
