"""Blocks of objects on this machine's disk, up to a bound; shared by all processes that name the same folder.

A block is a file: its CRC32C, then its bytes. What does not match its checksum is as good as absent. The time of the
file is that of its last use; when the bound is reached, the blocks that were not used for longest go.
"""

import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from trainer.object_store.eviction import make_room
from trainer.object_store.stores import StoredObject

_CHECKSUM = struct.Struct("<I")
_TOTAL = struct.Struct("<q")
_KEPT = 0.9
"""Of the bound, what is left after room was made, so that this is not done for each block."""
_TOUCH_S = 60.0
"""A use within so many seconds of the last one is not noted, which would cost a write for each read."""


class BlockCache:
    """The cache. Safe for several threads and processes.

    Args:
        folder: Where blocks lie, with nothing else in it.
        limit: Most bytes of all blocks together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = folder / "total"

    def get(self, one: StoredObject, block_bytes: int, number: int) -> bytes | None:
        """The block, or None where it is not there as it was written."""
        path = self._path(one, block_bytes, number)
        try:
            held = path.read_bytes()
            if time.time() - path.stat().st_mtime > _TOUCH_S:
                os.utime(path)
        except OSError:
            return None
        body = held[_CHECKSUM.size :]
        if len(held) < _CHECKSUM.size or _CHECKSUM.unpack_from(held)[0] != google_crc32c.value(body):
            path.unlink(missing_ok=True)
            return None
        return body

    def has(self, one: StoredObject, block_bytes: int, number: int) -> bool:
        """Whether there is such a block; `get` may find that it is damaged."""
        return self._path(one, block_bytes, number).exists()

    def put(self, one: StoredObject, block_bytes: int, number: int, block: bytes) -> None:
        """Keeps a block; does nothing where there is no room on the disk, or the block is larger than the bound."""
        size = _CHECKSUM.size + len(block)
        if size > self._limit:
            return
        path = self._path(one, block_bytes, number)
        # The cache is a cache: a full or failing disk makes reading slower, and never ends a run.
        with contextlib.suppress(OSError), self._locked() as handle:
            # Within the lock, so that whoever makes room sees all that there is. Room first: a process that is killed
            # in between leaves a total that is too high, and that is corrected when it is reached.
            self._take(handle, size)
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_suffix(".part")
            try:
                temporary.write_bytes(_CHECKSUM.pack(google_crc32c.value(block)) + block)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def _path(self, one: StoredObject, block_bytes: int, number: int) -> Path:
        named = f"{one.url}\n{one.size}\n{one.version}\n{block_bytes}\n{number}"
        digest = hashlib.blake2b(named.encode(), digest_size=16).hexdigest()
        return self._folder / digest[:2] / digest[2:]

    def _take(self, handle: int, size: int) -> None:
        held = os.pread(handle, _TOTAL.size, 0)
        total = _TOTAL.unpack(held)[0] if len(held) == _TOTAL.size else self._make_room(self._limit)
        if total + size > self._limit:
            total = self._make_room(min(int(self._limit * _KEPT), self._limit - size))
        os.pwrite(handle, _TOTAL.pack(total + size), 0)

    def _make_room(self, most: int) -> int:
        """Removes the blocks that were not used for longest until the others fit; gives the bytes of those."""
        folders = [folder.path for folder in os.scandir(self._folder) if folder.is_dir()]
        return make_room((file for folder in folders for file in os.scandir(folder)), most)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        handle = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)
