"""Memory for arrays that the workers of one host read from each other.

A region is one file of the folder that the host's workers share, mapped once and kept over the generations, because the
page faults of a fresh mapping cost more than an all-reduce. Only its worker makes, reuses and removes it. The files
hold no name of a generation: what lies where is told through the connections.
"""

import contextlib
import fcntl
import mmap
import os
import urllib.parse
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

_PAGE = mmap.PAGESIZE


class Region:
    """A piece of memory that starts on a page's boundary.

    Attributes:
        name: its file's; "" for memory that only this process has.
        data: its bytes.
        keeps: holds what the process may still want to read; not to be written for the next use.
        idle: generations that began while nobody used it.
    """

    def __init__(self, name: str, data: np.ndarray, role: str) -> None:
        self.name = name
        self.data = data
        self.role = role
        self.keeps = False
        self.idle = 0

    def array(self, num_elements: int, dtype: np.dtype) -> np.ndarray:
        """The region as a 1-D array."""
        return self.data[: num_elements * dtype.itemsize].view(dtype)


class Memory:
    """The regions of one worker, and its mappings of its host peers' regions.

    Args:
        folder: on tmpfs, one and the same for the workers of the host; None: nothing is shared.
        worker: its name.

    Attributes:
        bell: a descriptor that is readable after a host peer rang; -1 where nothing is shared.
    """

    def __init__(self, folder: Path | None, worker: str) -> None:
        self._folder = folder
        self._worker = worker
        self._num_made = 0
        self._made: set[str] = set()
        self._free: list[Region] = []  # the longest unused first
        self._peers: dict[tuple[str, str], np.ndarray] = {}
        self._alive: int | None = None
        self._bells: dict[str, int] = {}
        self.bell = -1
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_files_of_the_dead(folder)
            self._alive = os.open(_alive_file(folder, worker), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.mkfifo(_bell_file(folder, worker), 0o600)
            # Also for writing: a pipe whose writers have all gone would be readable for ever.
            self.bell = os.open(_bell_file(folder, worker), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def identity(self) -> tuple[int, int] | None:
        """What shows a peer that it sees this worker's folder, and not another one of the same path."""
        if self._alive is None:
            return None
        status = os.fstat(self._alive)
        return status.st_dev, status.st_ino

    def sees(self, worker: str, identity: Collection[int] | None) -> bool:
        """Whether a worker's files can be read here."""
        if self._folder is None or identity is None:
            return False
        try:
            status = os.stat(_alive_file(self._folder, worker))
        except OSError:
            return False
        return [status.st_dev, status.st_ino] == list(identity)

    def is_surely_dead(self, worker: str) -> bool:
        """Whether a host peer's process has ended, and can write nothing any more: it holds a lock while it lives."""
        return self._folder is not None and _is_unlocked(_alive_file(self._folder, worker))

    def take(self, role: str, num_bytes: int, overwrite: bool) -> Region:
        """A region for this use.

        Args:
            role: regions of another role are not reused, for others may still read or write them.
            num_bytes: that it needs.
            overwrite: may be one that `keeps`.

        Raises:
            OSError: the host has not enough memory for shared files.
        """
        for region in self._free:
            fits = num_bytes <= len(region.data) <= max(2 * num_bytes, _PAGE)
            if region.role == role and fits and (overwrite or not region.keeps):
                self._free.remove(region)
                region.idle = 0
                return region
        return self._make(role, num_bytes)

    def give_back(self, regions: Iterable[Region]) -> None:
        """The regions may be taken again."""
        self._free.extend(regions)

    def begin_generation(self) -> None:
        """Removes the regions that nobody has used for two generations."""
        for region in list(self._free):
            region.idle += 1
            if region.idle > 2:
                self._remove(region)

    def remove_all(self, role: str) -> None:
        """Removes the free regions of a role: somebody who may still write to them has left the group alive."""
        for region in [region for region in self._free if region.role == role]:
            self._remove(region)

    def peer(self, worker: str, name: str, num_bytes: int) -> np.ndarray:
        """A host peer's region, as bytes.

        Raises:
            OSError: it is not there.
        """
        found = self._peers.get((worker, name))
        if found is None:
            assert self._folder is not None
            fd = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
            try:
                found = self._peers[worker, name] = _map(fd, os.fstat(fd).st_size)
            finally:
                os.close(fd)
        return found[:num_bytes]

    def forget_peers(self, but: Collection[tuple[str, str]]) -> None:
        """Drops the mappings of all but these (worker, name), and the bells of other workers."""
        self._peers = {key: data for key, data in self._peers.items() if key in but}
        for worker in self._bells.keys() - {worker for worker, _ in but}:
            os.close(self._bells.pop(worker))

    def ring(self, worker: str) -> None:
        """Wakes a host peer that sleeps at its `bell`; one that is gone is not missed."""
        fd = self._bells.get(worker)
        with contextlib.suppress(OSError):  # it is gone, or its bell rings already
            if fd is None:
                assert self._folder is not None
                fd = os.open(_bell_file(self._folder, worker), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._bells[worker] = fd
            os.write(fd, b"!")

    def silence(self) -> None:
        """This worker's bell has been heard."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.bell, _PAGE)

    def names(self) -> list[str]:
        """The regions that exist, in use or not, by name."""
        return sorted(self._made)

    def close(self) -> None:
        """Removes the worker's files. Arrays in them stay valid where somebody holds them."""
        self._peers.clear()
        self._free.clear()
        if self._folder is not None and self._alive is not None:
            for path in self._folder.glob(f"{_quoted(self._worker)}.*"):
                path.unlink(missing_ok=True)
            for fd in (self.bell, *self._bells.values()):
                os.close(fd)
            self._bells.clear()
            os.close(self._alive)
            self._alive = None

    def _make(self, role: str, num_bytes: int) -> Region:
        size = -(-num_bytes // _PAGE) * _PAGE or _PAGE
        if self._folder is None:
            return Region("", np.frombuffer(mmap.mmap(-1, size), np.uint8), role)
        name = f"{_quoted(self._worker)}.{self._num_made}"
        self._num_made += 1
        fd = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Takes the memory now: a full tmpfs is an error here, and a SIGBUS if it were found out while writing.
            os.posix_fallocate(fd, 0, size)
            region = Region(name, _map(fd, size), role)
            self._made.add(name)
            return region
        except BaseException:
            (self._folder / name).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def _remove(self, region: Region) -> None:
        self._free.remove(region)
        self._made.discard(region.name)
        if region.name and self._folder is not None:
            (self._folder / region.name).unlink(missing_ok=True)


def _map(fd: int, size: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(fd, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)), np.uint8)


def _quoted(worker: str) -> str:
    """The name as a file name without dots."""
    return urllib.parse.quote(worker, safe="").replace(".", "%2E")


def _alive_file(folder: Path, worker: str) -> Path:
    return folder / f"{_quoted(worker)}.alive"


def _bell_file(folder: Path, worker: str) -> Path:
    return folder / f"{_quoted(worker)}.bell"


def _is_unlocked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True  # its worker closed it, or somebody removed the files of the dead
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _remove_files_of_the_dead(folder: Path) -> None:
    """Frees the memory of workers that were killed; their names are never used again."""
    for alive in folder.glob("*.alive"):
        if _is_unlocked(alive):
            for path in [*folder.glob(f"{alive.stem}.*")]:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
