"""Where each record of a TFRecord shard begins, so that records can be read in any order.

A shard is scanned once, from header to header, without reading the payloads. The index lies beside the shard under a
hidden name, so that a pattern such as `train-*` does not match it; where that folder is read-only, it lies in the
cache folder. It is valid as long as size and modification time of the shard are those that it was built from.
"""

import hashlib
import json
import os
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
    index = _load(beside, status.st_size, status.st_mtime_ns)
    if index is not None:
        return index
    digest = hashlib.blake2b(os.fsencode(shard.resolve()), digest_size=12).hexdigest()
    cached = cache_path("record-index") / f"{shard.name}-{digest}.index"
    index = _load(cached, status.st_size, status.st_mtime_ns)
    if index is not None:
        return index
    index = build_index(shard)
    try:
        _store(beside, index)
    except OSError:
        _store_in_cache(cached, index)
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
        boundaries = _scan(shard, handle, status.st_size)
    except OSError as error:
        raise _unreadable(shard, error) from error
    finally:
        os.close(handle)
    return RecordIndex(np.asarray(boundaries, np.int64), status.st_size, status.st_mtime_ns)


def _scan(shard: Path, handle: int, size: int) -> list[int]:
    boundaries, offset = [0], 0
    while offset + HEADER_BYTES <= size:
        header = os.pread(handle, HEADER_BYTES, offset)
        length = payload_length(header) if len(header) == HEADER_BYTES else None
        if length is None:
            raise damaged_header(shard, len(boundaries) - 1, offset, header)
        offset += FRAME_BYTES + length
        if offset > size:
            break
        boundaries.append(offset)
    return boundaries


def damaged_header(shard: Path, record: int, offset: int, header: bytes) -> DataError:
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


def _store(path: Path, index: RecordIndex) -> None:
    body = index.boundaries.astype("<i8").tobytes()
    head = {"size": index.size, "modified_ns": index.modified_ns, "crc32c": google_crc32c.value(body)}
    with written_whole(path) as temporary:
        temporary.write_bytes(_MAGIC + json.dumps(head).encode() + b"\n" + body)


def _store_in_cache(path: Path, index: RecordIndex) -> None:
    folder = cache_folder("record-index")
    try:
        _store(path, index)
    except OSError as error:
        rule = f"the index of a shard cannot be stored ({error.strerror})"
        raise DataError(folder, "", rule, "make room there, or set PHALANX_CACHE_DIR to another folder") from error


def _load(path: Path, size: int, modified_ns: int) -> RecordIndex | None:
    """Gives the stored index, or None where it is missing, stale or damaged and must be built again."""
    try:
        magic, head, body = path.read_bytes().split(b"\n", 2)
        fields = json.loads(head)
        if (magic + b"\n", fields["size"], fields["modified_ns"]) != (_MAGIC, size, modified_ns):
            return None
        if fields["crc32c"] != google_crc32c.value(body):
            return None
        return RecordIndex(np.frombuffer(body, "<i8"), size, modified_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return None
