"""Shards of records that are read by their number: TFRecord on this machine or in a store, and ArrayRecord."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from trainer.config.data_streams import TfrecordData
from trainer.data.checks import DataError
from trainer.data.places import find_files
from trainer.data.record_format import payload_of
from trainer.data.record_index import RecordIndex, open_index
from trainer.data.remote_index import open_remote_index
from trainer.object_store.objects import find_objects
from trainer.object_store.range_reader import RangeReader
from trainer.object_store.stores import StoredObject, is_url
from trainer.object_store.whole_files import copies_of

INDEXING_THREADS = 8


class RecordShard(Protocol):
    """A file of records. Safe to read from several threads.

    Attributes:
        name: Without the folder: decides which records are held out.
        num_records: That lie in it as a whole.
    """

    name: str
    num_records: int

    @property
    def cut_off(self) -> DataError | None:
        """The error of a last record of which only a part is there."""
        ...

    def read(self, numbers: Sequence[int]) -> list[bytes | str]:
        """Reads records: for each its payload, or the rule that it breaks.

        Raises:
            DataError: The file cannot be read, or has changed.
        """
        ...

    def fetch_ahead(self, numbers: Sequence[int]) -> None:
        """Notes that these records are read soon; returns at once."""
        ...


def open_shards(data: TfrecordData, pattern: str, setting: str) -> Sequence[RecordShard]:
    """Opens the shards that a pattern names; the first time, indexes them.

    Raises:
        DataError: There are none, or one cannot be read.
    """
    is_array_record = data.name == "array_record"
    if not is_url(pattern):
        paths = find_files(pattern, setting)
        if is_array_record:
            return [ArrayRecordShard(path, str(path), path.name) for path in paths]
        with ThreadPoolExecutor(INDEXING_THREADS) as pool:
            return list(pool.map(LocalShard, paths))
    objects, reader = find_objects(pattern, setting, data.store)
    if is_array_record:
        copies = zip(copies_of(objects, reader, data.store.cache), objects, strict=True)
        return [ArrayRecordShard(path, one.url, _name(one)) for path, one in copies]
    with ThreadPoolExecutor(INDEXING_THREADS) as pool:
        return list(pool.map(lambda one: RemoteShard(one, reader), objects))


class LocalShard:
    """A TFRecord file of this machine.

    It is opened for each batch rather than kept open: a set of some thousand shards would exceed the number of files
    that a process may have open, and a file that is replaced during training is noticed.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._index = path, open_index(path)
        self.name, self.num_records = path.name, self._index.num_records
        self.cut_off = _cut_off(path, self._index)

    def __str__(self) -> str:
        return str(self._path)

    def read(self, numbers: Sequence[int]) -> list[bytes | str]:
        """See `RecordShard`."""
        handle = self._open()
        try:
            return [self._read(handle, number) for number in numbers]
        finally:
            os.close(handle)

    def fetch_ahead(self, numbers: Sequence[int]) -> None:
        """Leaves that to the kernel."""

    def _read(self, handle: int, number: int) -> bytes | str:
        start, end = self._index.boundaries[number : number + 2].tolist()
        try:
            framed = os.pread(handle, end - start, start)
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        return _payload(framed, end - start)

    def _open(self) -> int:
        try:
            handle = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            rule = f"the file could be read when the run began, and now cannot ({error.strerror})"
            raise DataError(self._path, "", rule, "restore it and resume the run") from error
        status = os.fstat(handle)
        if (status.st_size, status.st_mtime_ns) != (self._index.size, self._index.modified_ns):
            os.close(handle)
            raise DataError(self._path, "", "the file changed after the run began", "start a new run on the new data")
        return handle


class RemoteShard:
    """A TFRecord file in an object store."""

    def __init__(self, one: StoredObject, reader: RangeReader) -> None:
        self._one, self._reader = one, reader
        self._index = open_remote_index(one, reader)
        self.name, self.num_records = _name(one), self._index.num_records
        self.cut_off = _cut_off(one.url, self._index)

    def __str__(self) -> str:
        return self._one.url

    def read(self, numbers: Sequence[int]) -> list[bytes | str]:
        """See `RecordShard`."""
        # All at once rather than one after the other; what is asked for twice is read once.
        self.fetch_ahead(numbers)
        found: list[bytes | str] = []
        for number in numbers:
            start, end = self._range(number)
            found.append(_payload(self._reader.read(self._one, start, end), end - start))
        return found

    def fetch_ahead(self, numbers: Sequence[int]) -> None:
        """See `RecordShard`."""
        self._reader.fetch_ahead((self._one, *self._range(number)) for number in numbers)

    def _range(self, number: int) -> tuple[int, int]:
        start, end = self._index.boundaries[number : number + 2].tolist()
        return start, end


class ArrayRecordShard:
    """A file of the package array_record.

    Args:
        path: Where it is on this machine.
        shown: What to call it.
        name: See `RecordShard`.

    Raises:
        DataError: The package is missing, or it is no such file.
    """

    cut_off = None

    def __init__(self, path: Path, shown: str, name: str) -> None:
        self._shown, self.name = shown, name
        try:
            from array_record.python.array_record_module import ArrayRecordReader
        except ImportError as error:
            rule = "reading it needs the package array_record, which is not installed"
            raise DataError(shown, "", rule, "install phalanx[tfds]") from error
        try:
            # As its documentation says, for reading at random.
            self._reader: Any = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
            if not self._reader.ok():
                self._reader.read([0])  # says why
        except Exception as error:
            rule = f"it cannot be read as ArrayRecord ({' '.join(str(error).split())})"
            raise DataError(shown, "", rule, "write it again, or correct data.pattern") from error
        self.num_records = int(self._reader.num_records())
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return self._shown

    def read(self, numbers: Sequence[int]) -> list[bytes | str]:
        """See `RecordShard`."""
        with self._lock:
            try:
                return list(self._reader.read(list(numbers)))
            except Exception as error:
                if len(numbers) == 1:
                    return [f"it cannot be read ({' '.join(str(error).split())})"]
        return [self.read([number])[0] for number in numbers]

    def fetch_ahead(self, numbers: Sequence[int]) -> None:
        """The file is on this machine."""


def _payload(framed: bytes, size: int) -> bytes | str:
    payload = payload_of(framed) if len(framed) == size else None
    return f"the checksum of its {size - 16} bytes does not match: it is damaged" if payload is None else payload


def _cut_off(file: object, index: RecordIndex) -> DataError | None:
    if not index.cut_off:
        return None
    rule = f"the file ends in the middle of it, at byte {index.size}"
    change = "copy the file again from its origin, or leave the record out with data.skip_bad_records"
    return DataError(file, f"record {index.num_records}", rule, change)


def _name(one: StoredObject) -> str:
    return one.url.partition("?")[0].rpartition("/")[2]
