"""A part: the records of one chunk, encoded, keyed, and sorted in runs, so that a shard's share of each is one piece.

Layout: runs of entries, then a JSON object, then its length (uint64) and its CRC32C (uint32), little-endian, and a
mark. An entry is a key (uint64) and a framed record (`trainer.data.record_format`). The object says where in each run
the entries of each shard begin. A part has its name only when it is whole.
"""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from trainer.data.checks import DataError
from trainer.data.record_format import FRAME_BYTES, HEADER_BYTES, frame, payload_length, payload_of
from trainer.preparation.order import shard_of
from trainer.preparation.request import DamagedRecord

RUN_BYTES = 32 << 20
"""Of payload that a writer holds in memory before it sorts and writes it."""
_KEY = struct.Struct("<Q")
_TAIL = struct.Struct("<QI")
_MARK = b"phalanx part 1\n"


class PartWriter:
    """Writes a part to a file that is open for it.

    Args:
        file: Empty.
        num_shards: Over which the keys are shared out.
        run_bytes: Of a run. Nothing that is read from the part depends on it.
    """

    def __init__(self, file: BinaryIO, num_shards: int, run_bytes: int = RUN_BYTES) -> None:
        self._file, self._num_shards, self._run_bytes = file, num_shards, run_bytes
        self._held: list[tuple[int, bytes]] = []
        self._held_bytes = 0
        self._runs: list[list[int]] = []
        self.records = 0

    def add(self, key: int, payload: bytes) -> None:
        """Takes a record."""
        self._held.append((key, payload))
        self._held_bytes += len(payload)
        self.records += 1
        if self._held_bytes >= self._run_bytes:
            self._write_run()

    def finish(self, damaged: list[DamagedRecord], raw_bytes: int) -> None:
        """Writes what is left, and what there is to know about the part."""
        self._write_run()
        facts = {
            "runs": self._runs,
            "records": self.records,
            "raw_bytes": raw_bytes,
            "damaged": [record.model_dump() for record in damaged],
        }
        body = json.dumps(facts).encode()
        self._file.write(body + _TAIL.pack(len(body), google_crc32c.value(body)) + _MARK)

    def _write_run(self) -> None:
        if not self._held:
            return
        # By payload where two keys are equal: not by who came first.
        self._held.sort()
        begins, offset = [], self._file.tell()
        for key, payload in self._held:
            while len(begins) <= shard_of(key, self._num_shards):
                begins.append(offset)
            offset += self._file.write(_KEY.pack(key) + frame(payload))
        self._runs.append(begins + [offset] * (self._num_shards + 1 - len(begins)))
        self._held, self._held_bytes = [], 0


class Part:
    """A part that is read.

    Attributes:
        records, raw_bytes: How many are in it, and of how many bytes of raw data it was made.
        damaged: What was left out.

    Raises:
        DataError: It is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL.size - len(_MARK)))
                tail = file.read()
                length, checksum = _TAIL.unpack(tail[: _TAIL.size])
                file.seek(size - len(tail) - length)
                body = file.read(length)
        except (OSError, ValueError, struct.error) as error:
            raise self._damaged() from error
        if tail[_TAIL.size :] != _MARK or google_crc32c.value(body) != checksum:
            raise self._damaged()
        facts = json.loads(body)
        self._runs: list[list[int]] = facts["runs"]
        self.records: int = facts["records"]
        self.raw_bytes: int = facts["raw_bytes"]
        self.damaged = [DamagedRecord(**record) for record in facts["damaged"]]

    def entries(self, shard: int) -> Iterator[tuple[int, bytes]]:
        """The keys and framed records that belong to a shard, each run sorted.

        Raises:
            DataError: A record is damaged.
        """
        with self.path.open("rb") as file:
            for begins in self._runs:
                start, stop = begins[shard : shard + 2]
                file.seek(start)
                held = file.read(stop - start)
                yield from self._entries(held)

    def _entries(self, held: bytes) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at < len(held):
            begin = at + _KEY.size
            header = held[begin : begin + HEADER_BYTES]
            length = payload_length(header) if len(header) == HEADER_BYTES else None
            if length is None:
                raise self._damaged()
            end = begin + FRAME_BYTES + length
            framed = held[begin:end]
            if payload_of(framed) is None:
                raise self._damaged()
            yield _KEY.unpack_from(held, at)[0], framed
            at = end

    def _damaged(self) -> DataError:
        rule = "an intermediate file of the preparation is damaged"
        return DataError(self.path, "", rule, "remove it and give the command again, which makes it anew")
