"""Shards of tf.train.Example, TFRecord or ArrayRecord, read at random from this machine or from an object store."""

from collections.abc import Iterator, Sequence

import numpy as np

from trainer.config.data_streams import RecordFeature, TfrecordData
from trainer.data.checks import DataError
from trainer.data.examples import ExampleFault, ExampleParser
from trainer.data.held_out import Split, choose_split, draw_records
from trainer.data.record_shards import open_shards
from trainer.data.source import Feature, Schema
from trainer.data.streaming import Sample, Stored, StreamingSource
from trainer.object_store.stores import is_url


class RecordSource(StreamingSource):
    """The records of one split.

    Attributes:
        ahead: Batches whose records are announced before they are read; 0 where that changes nothing.
    """

    def __init__(self, data: TfrecordData, split: Split):
        pattern, setting = data.pattern, "data.pattern"
        if split == "held_out" and data.held_out_pattern is not None:
            pattern, setting = data.held_out_pattern, "data.held_out_pattern"
        self.ahead = data.store.ahead if is_url(pattern) else 0
        self._shards = open_shards(data, pattern, setting)
        counts = [shard.num_records for shard in self._shards]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if not self._starts[-1]:
            raise DataError(pattern, "", "the files hold no records", f"write records, or correct {setting}")
        self._records = np.arange(self._starts[-1])
        if data.held_out_pattern is None:
            drawn = [draw_records(shard.name, count) for shard, count in zip(self._shards, counts, strict=True)]
            self._records = choose_split(pattern, np.concatenate(drawn), data.held_out_fraction, split)
        features = {name: _feature(name, feature, data) for name, feature in data.features.items()}
        schema = Schema(features, data.target, len(self._records), data.num_classes)
        images = frozenset(name for name, feature in data.features.items() if feature.kind == "image")
        # Integers come as int64, so that one that does not fit is seen before it is narrowed.
        types = {name: "int64" for name, feature in data.features.items() if feature.kind == "integer"}
        super().__init__(schema, data.skip_bad_records, Stored(types, images, data.resize))
        self._parser = ExampleParser(data.features)
        for shard in self._shards:
            if shard.cut_off is not None:
                self.skipped.add(shard.cut_off)

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

    def announce(self, index: np.ndarray) -> np.int64:
        """Has the records at `index`, int64 [B], fetched from the store; returns at once how many they are."""
        for shard, _, numbers in self._by_shard(index):
            self._shards[shard].fetch_ahead(numbers)
        return np.int64(len(index))

    def _read_payloads(self, index: np.ndarray) -> list[bytes | DataError]:
        payloads: list[bytes | DataError] = [b""] * len(index)
        for shard, rows, numbers in self._by_shard(index):
            for row, payload in zip(rows, self._shards[shard].read(numbers), strict=True):
                payloads[row] = self.error(int(index[row]), payload) if isinstance(payload, str) else payload
        return payloads

    def _by_shard(self, index: np.ndarray) -> Iterator[tuple[int, list[int], list[int]]]:
        """For each shard that is needed, the rows of `index` and the numbers of the records in it."""
        records = self._records[index]
        shards = np.searchsorted(self._starts, records, side="right") - 1
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard)
            yield shard, rows.tolist(), (records[rows] - self._starts[shard]).tolist()

    def _find(self, record: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, record, side="right")) - 1
        return shard, record - int(self._starts[shard])


def open_records(data: TfrecordData, split: Split) -> RecordSource:
    """Opens the shards of a split; the first time, indexes them.

    Raises:
        DataError: No shard matches, a shard is damaged beyond a single record, or it ends in the middle of a record
            and data.skip_bad_records allows none to be left out.
    """
    return RecordSource(data, split)


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
