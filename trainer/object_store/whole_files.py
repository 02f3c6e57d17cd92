"""Whole copies of objects on this machine's disk, for a format whose reader takes nothing but a path."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainer.data.cache_folder import cache_folder, written_whole
from trainer.data.checks import DataError
from trainer.object_store.eviction import make_room
from trainer.object_store.range_reader import RangeReader
from trainer.object_store.stores import StoredObject

_PIECE_BYTES = 8 << 20
_THREADS = 4


def copies_of(objects: Sequence[StoredObject], reader: RangeReader, limit: int) -> list[Path]:
    """Brings objects here, except those that are here already; others go to make room for them.

    Args:
        objects: In some order.
        reader: Reads them.
        limit: Most bytes of all copies.

    Raises:
        DataError: They do not fit, cannot be read, or cannot be written.
    """
    needed = sum(one.size for one in objects)
    if needed > limit:
        rule = f"the files take {needed} bytes, which are needed whole, and data.store.cache is {limit}"
        raise DataError(objects[0].url, "", rule, "raise data.store.cache, or prepare the data as TFRecord")
    folder = cache_folder("whole-files")
    paths = [folder / _name(one) for one in objects]
    needed_names = {path.name for path in paths}
    make_room((file for file in os.scandir(folder) if file.name not in needed_names), limit - needed)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(_copy, objects, paths, [reader] * len(paths)))
    return paths


def _copy(one: StoredObject, path: Path, reader: RangeReader) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size == one.size:
            os.utime(path)
            return
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            for start in range(0, one.size, _PIECE_BYTES):
                file.write(reader.store.read(one, start, min(one.size, start + _PIECE_BYTES)))
    except OSError as error:
        rule = f"a copy of {one.url} cannot be written ({error.strerror})"
        raise DataError(path.parent, "", rule, "make room there, or set PHALANX_CACHE_DIR to another folder") from error


def _name(one: StoredObject) -> str:
    digest = hashlib.blake2b(f"{one.url}\n{one.size}\n{one.version}".encode(), digest_size=16).hexdigest()
    return f"{digest}-{one.size}"
