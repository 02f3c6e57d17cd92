"""TFRecord shards of tf.train.Example, read at random."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from trainer.config.data_streams import RecordFeature, TfrecordData
from trainer.data.checks import DataError
from trainer.data.examples import ExampleFault, ExampleParser
from trainer.data.held_out import Split, choose_split, draw_records
from trainer.data.places import find_files
from trainer.data.record_format import payload_of
from trainer.data.record_index import RecordIndex, open_index
from trainer.data.source import Feature, Schema
from trainer.data.streaming import Sample, Stored, StreamingSource

INDEXING_THREADS = 8


class RecordSource(StreamingSource):
    """The records of one split.

    Shards are opened for each batch rather than kept open: a set of some thousand shards would exceed the number of
    files that a process may have open, and a file that is replaced during training is noticed.
    """

    def __init__(self, data: TfrecordData, split: Split):
        pattern, setting = data.pattern, "data.pattern"
        if split == "held_out" and data.held_out_pattern is not None:
            pattern, setting = data.held_out_pattern, "data.held_out_pattern"
        self._shards = find_files(pattern, setting)
        with ThreadPoolExecutor(INDEXING_THREADS) as pool:
            self._indexes = list(pool.map(open_index, self._shards))
        counts = [index.num_records for index in self._indexes]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if not self._starts[-1]:
            raise DataError(pattern, "", "the files hold no records", f"write records, or correct {setting}")
        self._records = np.arange(self._starts[-1])
        if data.held_out_pattern is None:
            drawn = [draw_records(path.name, count) for path, count in zip(self._shards, counts, strict=True)]
            self._records = choose_split(pattern, np.concatenate(drawn), data.held_out_fraction, split)
        features = {name: _feature(name, feature, data) for name, feature in data.features.items()}
        schema = Schema(features, data.target, len(self._records), data.num_classes)
        images = frozenset(name for name, feature in data.features.items() if feature.kind == "image")
        # Integers come as int64, so that one that does not fit is seen before it is narrowed.
        types = {name: "int64" for name, feature in data.features.items() if feature.kind == "integer"}
        super().__init__(schema, data.skip_bad_records, Stored(types, images, data.resize))
        self._parser = ExampleParser(data.features)
        self._leave_out_cut_off_records()

    def place(self, index: int) -> tuple[str, str]:
        """Names the shard and the number of the record in it."""
        shard, record = self._find(int(self._records[index]))
        return str(self._shards[shard]), f"record {record}"

    def load(self, index: np.ndarray) -> Sequence[Sample | DataError]:
        """Reads, checks and parses the records at `index`."""
        payloads = self._read_payloads(index)
        sound = [row for row, payload in enumerate(payloads) if isinstance(payload, bytes)]
        parsed = self._parser.parse([payload for payload in payloads if isinstance(payload, bytes)])
        samples: list[Sample | DataError] = [p if isinstance(p, DataError) else {} for p in payloads]
        for row, sample in zip(sound, parsed, strict=True):
            samples[row] = self.error(index[row], str(sample)) if isinstance(sample, ExampleFault) else sample
        return samples

    def _read_payloads(self, index: np.ndarray) -> list[bytes | DataError]:
        records = self._records[index]
        shards = np.searchsorted(self._starts, records, side="right") - 1
        payloads: list[bytes | DataError] = [b""] * len(index)
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard).tolist()
            handle = self._open(shard)
            try:
                for row in rows:
                    payloads[row] = self._read_payload(handle, shard, int(records[row]), int(index[row]))
            finally:
                os.close(handle)
        return payloads

    def _read_payload(self, handle: int, shard: int, record: int, index: int) -> bytes | DataError:
        number = record - int(self._starts[shard])
        start, end = self._indexes[shard].boundaries[number : number + 2].tolist()
        try:
            framed = os.pread(handle, end - start, start)
        except OSError as error:
            return self.error(index, f"it cannot be read ({error.strerror})")
        payload = payload_of(framed) if len(framed) == end - start else None
        if payload is None:
            return self.error(index, f"the checksum of its {end - start - 16} bytes does not match: it is damaged")
        return payload

    def _open(self, shard: int) -> int:
        path, index = self._shards[shard], self._indexes[shard]
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            rule = f"the file could be read when the run began, and now cannot ({error.strerror})"
            raise DataError(path, "", rule, "restore it and resume the run") from error
        if _state(handle) != (index.size, index.modified_ns):
            os.close(handle)
            raise DataError(path, "", "the file changed after the run began", "start a new run on the new data")
        return handle

    def _find(self, record: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, record, side="right")) - 1
        return shard, record - int(self._starts[shard])

    def _leave_out_cut_off_records(self) -> None:
        for path, index in zip(self._shards, self._indexes, strict=True):
            if index.cut_off:
                self.skipped.add(_cut_off(path, index))


def open_records(data: TfrecordData, split: Split) -> RecordSource:
    """Opens the shards of a split; the first time, indexes them.

    Raises:
        DataError: No shard matches, a shard is damaged beyond a single record, or it ends in the middle of a record
            and data.skip_bad_records allows none to be left out.
    """
    return RecordSource(data, split)


def _cut_off(path: Path, index: RecordIndex) -> DataError:
    rule = f"the file ends in the middle of it, at byte {index.size}"
    change = "copy the file again from its origin, or leave the record out with data.skip_bad_records"
    return DataError(path, f"record {index.num_records}", rule, change)


def _state(handle: int) -> tuple[int, int]:
    status = os.fstat(handle)
    return status.st_size, status.st_mtime_ns


def _feature(name: str, feature: RecordFeature, data: TfrecordData) -> Feature:
    if feature.kind == "image":
        return Feature((*data.image_size, feature.channels), "float32")
    if feature.kind == "float":
        return Feature(feature.shape, "float32")
    stored = "int64" if feature.kind == "integer" else feature.dtype
    bounded = feature.num_values or (name == data.target and data.num_classes)
    # What is known to fit is narrowed; a number that is not bounded could wrap around without a word.
    dtype = "int32" if bounded and stored == "int64" else stored
    return Feature(feature.shape, dtype, num_values=feature.num_values)
