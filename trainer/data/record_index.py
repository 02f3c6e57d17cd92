"""Where each record of a TFRecord shard begins, so that records can be read in any order.

A shard is scanned once, from header to header, without reading the payloads. The index lies beside the shard under a
hidden name, so that a pattern such as `train-*` does not match it; where that folder is read-only, it lies in the
cache folder. It is valid as long as size and modification time of the shard are those that it was built from.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from trainer.data.cache_folder import cache_folder, cache_path, written_whole
from trainer.data.checks import DataError
from trainer.data.record_format import FRAME_BYTES, HEADER_BYTES, payload_length

_MAGIC = b"phalanx record index 1\n"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}
_RESTORE = "restore the file from its origin, or take it out of the data"


@dataclass(frozen=True)
class RecordIndex:
    """The records of one shard.

    Attributes:
        boundaries: int64 [num_records + 1]; record i with its header and footer is bytes [boundaries[i],
            boundaries[i + 1]).
        size: Size of the shard in bytes.
        modified_ns: Modification time of the shard, in nanoseconds.
    """

    boundaries: np.ndarray
    size: int
    modified_ns: int

    @property
    def num_records(self) -> int:
        """Records that lie in the shard as a whole."""
        return len(self.boundaries) - 1

    @property
    def cut_off(self) -> bool:
        """The shard ends in the middle of a record, which is not counted in `num_records`."""
        return int(self.boundaries[-1]) != self.size


def open_index(shard: Path) -> RecordIndex:
    """Reads the stored index of a shard; builds and stores it where there is none, or one of another state of the file.

    Raises:
        DataError: The shard is missing, is not readable, is compressed, is no TFRecord file or has a damaged header.
    """
    try:
        status = shard.stat()
    except OSError as error:
        raise _unreadable(shard, error) from error
    beside = shard.with_name(f".{shard.name}.index")
    index = load_index(beside, status.st_size, status.st_mtime_ns)
    if index is not None:
        return index
    cached = cache_path("record-index") / cached_name(str(shard.resolve()), shard.name)
    index = load_index(cached, status.st_size, status.st_mtime_ns)
    if index is not None:
        return index
    index = build_index(shard)
    try:
        store_index(beside, index)
    except OSError:
        store_in_cache(cached, index)
    return index


def build_index(shard: Path) -> RecordIndex:
    """Scans a shard.

    A shard that ends in the middle of a record has an index of the whole ones (`RecordIndex.cut_off`). After a damaged
    header nothing can be found any more, so that is an error even where bad records may be skipped.

    Raises:
        DataError: As `open_index`.
    """
    try:
        handle = os.open(shard, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(shard, error) from error
    try:
        status = os.fstat(handle)
        boundaries = scan(shard, lambda length, offset: os.pread(handle, length, offset), status.st_size)
    except OSError as error:
        raise _unreadable(shard, error) from error
    finally:
        os.close(handle)
    return RecordIndex(np.asarray(boundaries, np.int64), status.st_size, status.st_mtime_ns)


def scan(shard: object, read: Callable[[int, int], bytes], size: int) -> list[int]:
    """Goes from header to header.

    Args:
        shard: For messages.
        read: Gives so many bytes from an offset on.
        size: Of the shard, bytes.

    Returns:
        The boundaries of the whole records.

    Raises:
        DataError: A header is damaged.
    """
    boundaries, offset = [0], 0
    while offset + HEADER_BYTES <= size:
        header = read(HEADER_BYTES, offset)
        length = payload_length(header) if len(header) == HEADER_BYTES else None
        if length is None:
            raise damaged_header(shard, len(boundaries) - 1, offset, header)
        offset += FRAME_BYTES + length
        if offset > size:
            break
        boundaries.append(offset)
    return boundaries


def damaged_header(shard: object, record: int, offset: int, header: bytes) -> DataError:
    """What the 12 bytes before a record mean that are no header; `offset` is where they are in the shard."""
    if record == 0 and header[:2] in _COMPRESSED:
        kind = _COMPRESSED[header[:2]]
        return DataError(
            shard,
            "",
            f"it is compressed with {kind}, in which no record can be found without reading all before it",
            "write it without compression (images are compressed already)",
        )
    if record == 0:
        return DataError(shard, "", "it does not begin like a TFRecord file", "correct data.pattern, or the file")
    rule = f"the checksum of its length does not match at byte {offset}, so the rest of the file cannot be read"
    return DataError(shard, f"record {record}", rule, _RESTORE)


def _unreadable(shard: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(shard, "", "the file does not exist", "restore it, or correct data.pattern")
    return DataError(shard, "", f"it cannot be read ({error.strerror})", "make the file readable")


def store_index(path: Path, index: RecordIndex) -> None:
    """Writes an index.

    Raises:
        OSError: It cannot be written.
    """
    body = index.boundaries.astype("<i8").tobytes()
    head = {"size": index.size, "modified_ns": index.modified_ns, "crc32c": google_crc32c.value(body)}
    with written_whole(path) as temporary:
        temporary.write_bytes(_MAGIC + json.dumps(head).encode() + b"\n" + body)


def store_in_cache(path: Path, index: RecordIndex) -> None:
    """Writes an index into the cache folder.

    Raises:
        DataError: It cannot be written.
    """
    folder = cache_folder("record-index")
    try:
        store_index(path, index)
    except OSError as error:
        rule = f"the index of a shard cannot be stored ({error.strerror})"
        raise DataError(folder, "", rule, "make room there, or set PHALANX_CACHE_DIR to another folder") from error


def load_index(path: Path, size: int, modified_ns: int) -> RecordIndex | None:
    """Gives the stored index, or None where it is missing, stale or damaged and must be built again."""
    try:
        index = parse_index(path.read_bytes(), size)
    except OSError:
        return None
    return index if index is not None and index.modified_ns == modified_ns else None


def parse_index(stored: bytes, size: int) -> RecordIndex | None:
    """Reads the bytes of a stored index; None where they are damaged, or of a shard of another size."""
    try:
        magic, head, body = stored.split(b"\n", 2)
        fields = json.loads(head)
        if (magic + b"\n", fields["size"]) != (_MAGIC, size) or fields["crc32c"] != google_crc32c.value(body):
            return None
        return RecordIndex(np.frombuffer(body, "<i8"), size, fields["modified_ns"])
    except (ValueError, KeyError, TypeError):
        return None


def cached_name(shard: str, name: str) -> str:
    """What the index of a shard is called in the cache folder: `shard` tells it from all others."""
    digest = hashlib.blake2b(os.fsencode(shard), digest_size=12).hexdigest()
    return f"{name}-{digest}.index"
