"""Files of rows of fixed width in the cache folder: made once, mapped by all processes, bounded, and never torn.

A file is its rows, 32-bit words [N, W], then what describes them as JSON, the checksums of both and their lengths. It
has its name only when all of it is on the disk. One process makes one at a time, under a lock of the kernel's: whoever
wants the same waits, and finds it; what a killed process has left half made goes when the next one is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from trainer.data.cache_folder import cache_folder, written_whole
from trainer.data.checks import DataError
from trainer.object_store.eviction import make_room

FOLDER = "tables"
"""Kind of the files in the cache folder."""
WORD = 4
_END = struct.Struct("<8sQQQII")
"""Magic, N, W, bytes of JSON, checksum of the rows, checksum of the JSON."""
_MAGIC = b"PHXROWS1"


@dataclass(frozen=True)
class RowFile:
    """A file that is mapped.

    Attributes:
        rows: int32 [N, W], read only.
        described: What `Plan.rows` said of them.
        held: The mapping, for advice to the kernel.
        checksum: CRC32C of the rows.
    """

    rows: np.ndarray
    described: dict[str, Any]
    held: mmap.mmap | None
    checksum: int

    def is_sound(self) -> bool:
        """Whether the rows are those that were written; reads all of them."""
        return google_crc32c.value(self.rows.tobytes()) == self.checksum


@dataclass(frozen=True)
class Plan:
    """How a file is made.

    Attributes:
        num_rows: N.
        width: W.
        rows: Pieces of the rows in order, int32 [n, W].
        describe: Called when all rows were given: what is kept beside them, as JSON can.
    """

    num_rows: int
    width: int
    rows: Iterable[np.ndarray]
    describe: Callable[[], dict[str, Any]]


def open_row_file(key: str, limit: int, source: object, plan: Callable[[], Plan]) -> RowFile:
    """Maps the file of a key; makes it where there is none, and room for it.

    Args:
        key: A name for all that its rows depend on.
        limit: Most bytes of all such files together.
        source: What is read, for messages.
        plan: Called once, where the file has to be made.

    Raises:
        DataError: The file does not fit into `limit` or on the disk, or what `plan` raises.
    """
    folder = cache_folder(FOLDER)
    path = folder / f"{key}.rows"
    if (found := _mapped(path)) is not None:
        return found
    with _alone(folder):
        if (found := _mapped(path)) is not None:  # made while we waited
            return found
        for left in folder.glob(".*.part"):  # of a process that was killed: nobody else is making one
            left.unlink(missing_ok=True)
        _make(path, limit, source, plan())
        found = _mapped(path)
    assert found is not None, "what was made is there"
    return found


def _make(path: Path, limit: int, source: object, plan: Plan) -> None:
    size = plan.num_rows * plan.width * WORD
    if size > limit:
        rule = f"its {plan.num_rows} rows take {size} bytes when they are encoded, and data.store.cache is {limit}"
        raise DataError(source, "", rule, "raise data.store.cache, or name fewer columns")
    make_room((entry for entry in os.scandir(path.parent) if entry.name.endswith(".rows")), limit - size)
    try:
        with written_whole(path) as temporary, temporary.open("r+b") as file:
            if size:  # now, and not when hours of reading are done
                os.posix_fallocate(file.fileno(), 0, size)
            checksum, written = 0, 0
            for piece in plan.rows:
                body = np.ascontiguousarray(piece, "<i4").tobytes()
                checksum = google_crc32c.extend(checksum, body)
                written += file.write(body)
            assert written == size, "as many rows as were planned"
            described = json.dumps(plan.describe()).encode()
            file.write(described)
            ends = plan.num_rows, plan.width, len(described), checksum, google_crc32c.value(described)
            file.write(_END.pack(_MAGIC, *ends))
    except OSError as error:
        rule = f"the encoded rows of {source}, {size} bytes, cannot be written ({error.strerror})"
        raise DataError(path.parent, "", rule, "make room there, or set PHALANX_CACHE_DIR to another folder") from error


def _mapped(path: Path) -> RowFile | None:
    """The file, or None where it is not there as it was written."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _END.size:
                return None
            magic, num_rows, width, length, checksum, checksum_described = _END.unpack(
                os.pread(file.fileno(), _END.size, size - _END.size)
            )
            rows_size = num_rows * width * WORD
            if magic != _MAGIC or rows_size + length + _END.size != size:
                return None
            described = os.pread(file.fileno(), length, rows_size)
            if google_crc32c.value(described) != checksum_described:
                return None
            held = mmap.mmap(file.fileno(), rows_size, prot=mmap.PROT_READ) if rows_size else None
        with contextlib.suppress(OSError):  # its last use
            os.utime(path)
    except OSError:
        return None
    rows = np.frombuffer(held, "<i4") if held is not None else np.empty(0, "<i4")
    return RowFile(rows.reshape(num_rows, width), json.loads(described), held, checksum)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
