"""One process a run folder: the second is refused, with the first one's pid and host.

The lock is the kernel's (`flock`), so it ends with its process however that ends, and there is no stale lock to clear
away. What the lock file says is only for people and for `phalanx stop`.
"""

import errno
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.process import NoSuchProcess, ProcessIdentity, is_alive, this_process

# A holder writes its name right after it has taken the lock; another process that merely asks who holds it has it
# for microseconds. Both are over within this time.
_PATIENCE_S = 0.5
TRAINING, KEEPING = ".lock", ".keeper.lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class RunLockError(Exception):
    """The run folder cannot be locked. The message is one sentence for the user."""


@dataclass(frozen=True)
class Holder:
    """Who holds a run folder.

    Attributes:
        process: the process.
        started: seconds since 1970 at which it took the lock.
        command: its command line.
    """

    process: ProcessIdentity
    started: float
    command: list[str]


class RunBusy(RunLockError):
    """Another process holds the run folder.

    Attributes:
        holder: who; None when it has not said.
    """

    def __init__(self, folder: Path, holder: Holder | None) -> None:
        who = f"process {holder.process.pid} on {holder.process.host}" if holder else "another process"
        super().__init__(
            f"{folder} is in use by {who}: wait for it, end it with `phalanx stop {folder}`, or give this run another "
            "name with run.name"
        )
        self.holder = holder


class RunLock:
    """Holds a run folder from `acquire` until `release` or the end of the process.

    Args:
        folder: the run folder; it exists.
        command: what the lock file says that this process does, usually `sys.argv`.
        name: of the lock file. `TRAINING` is whose process trains; `KEEPING`, whose starts that one again.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with RunLock(folder, ["phalanx", "train"]):
    ...     read_holder(folder).command
    ['phalanx', 'train']
    >>> read_holder(folder) is None
    True
    """

    def __init__(self, folder: Path, command: list[str], name: str = TRAINING) -> None:
        self.folder, self._command = folder, command
        self._path = folder / name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            RunBusy: another process has it, or another lock of this process.
            RunLockError: the folder is not writable, or its file system has no locks.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunLockError(
                f"{self._path} cannot be opened for writing ({error.strerror}): make the run folder writable, "
                "or choose another place with run.dir"
            ) from None
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while not _try_lock(descriptor, fcntl.LOCK_EX, self.folder):
                holder = _parse(descriptor)
                if _certainly_runs(holder) or time.monotonic() > deadline:
                    raise RunBusy(self.folder, holder)
                time.sleep(0.01)
            self._write_name(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock back. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _write_name(self, descriptor: int) -> None:
        holder = Holder(this_process(), time.time(), self._command)
        text = json.dumps(asdict(holder)).encode()
        try:
            # In this order a reader finds either a whole name or none: a half-written one is not JSON.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
        except OSError as error:
            raise RunLockError(
                f"{self._path} cannot be written ({error.strerror}): free space in the run folder, or choose "
                "another place with run.dir"
            ) from None


def read_holder(folder: Path, name: str = TRAINING) -> Holder | None:
    """Who holds a run folder now; None when nobody does. The lock itself is left alone wherever that is possible.

    Args:
        folder: the run folder.
        name: of the lock file, as for `RunLock`.

    Raises:
        RunLockError: the file system has no locks, so that a process of another host cannot be told from a dead one.
    """
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        holder = _parse(descriptor)
        if holder is None or (holder.process.is_local and not is_alive(holder.process)):
            return None
        # Alive or of another host. Only who has let go of the lock, and still runs, lets this succeed.
        return None if _try_lock(descriptor, fcntl.LOCK_SH, folder) else holder
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # NFS says EACCES for "taken"
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise RunLockError(
            f"{folder} is on a file system without locks ({error.strerror}), so two processes could write to one run "
            "unnoticed: choose a local disk with run.dir, or mount it with locks (NFS: without nolock)"
        ) from None
    return True


def _parse(descriptor: int) -> Holder | None:
    try:
        content = json.loads(os.pread(descriptor, 1 << 16, 0))
        return Holder(ProcessIdentity(**content["process"]), content["started"], content["command"])
    except (ValueError, KeyError, TypeError):
        return None


def _certainly_runs(holder: Holder | None) -> bool:
    try:
        return holder is not None and is_alive(holder.process)
    except NoSuchProcess:
        return False
