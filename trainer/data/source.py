"""What a data source is: its schema, the protocol of reading it, and the list of records that it left out.

Shape legend: B batch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from trainer.data.checks import DataError

if TYPE_CHECKING:
    import tensorflow as tf


SAMPLE_WEIGHT = "sample_weight"
"""What a batch calls the weights of its samples, float32 [B]; no feature may have this name."""


@dataclass(frozen=True)
class Feature:
    """One named tensor of a sample.

    Attributes:
        shape: Shape of one sample, without the batch dimension.
        dtype: TensorFlow's name of the type that `Source.read` gives: "float32", "int32", ...
        vocabulary: The category names of a categorical feature. Its values are int32: 0 stands for a missing or unknown
            category, `i + 1` for `vocabulary[i]` (the numbering of `keras.layers.StringLookup` with one unknown index).
        hash_buckets: Of a categorical feature without a vocabulary: 0 stands for a missing one, 1 to `hash_buckets` for
            names, as `trainer.data.hashing` numbers them.
        bucket_names: A name for each number of such a feature that the training split has, the most frequent one.
        num_values: For integer features, the values lie in [0, num_values). None: not bounded.
        mean: Mean of the training split, for numeric columns whose scale the model should normalise.
        std: Standard deviation of the training split, never 0.
        channels: Both for each number of the last dimension, where those differ in kind: the channels of a series.
        separator: Of tokens: the one that ends a document. A sample holds several documents, which must not see each
            other.
        continues: For the target of a forecast, [F, K]: it goes on with the first K channels of the input, [P, C].
    """

    shape: tuple[int, ...]
    dtype: str
    vocabulary: tuple[str, ...] | None = None
    num_values: int | None = None
    mean: float | None = None
    std: float | None = None
    hash_buckets: int | None = None
    bucket_names: Mapping[int, str] | None = None
    channels: tuple[tuple[float, ...], ...] | None = None
    separator: int | None = None
    continues: bool = False


@dataclass(frozen=True)
class Schema:
    """Names, shapes, types and length of a source; the target is one of the features.

    Attributes:
        features: Every tensor of a sample by name, the target included.
        target: Name of the feature to predict; None where the task makes the target itself (language modelling).
        num_samples: Length of the source.
        num_classes: Number of classes of the target, or the number of different tokens; None for a regression.
        class_names: Names of the classes, if the source knows them.
    """

    features: Mapping[str, Feature]
    target: str | None
    num_samples: int
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def inputs(self) -> dict[str, Feature]:
        """The features that a model is called with."""
        return {name: feature for name, feature in self.features.items() if name != self.target}


class SkippedRecord(NamedTuple):
    """A record that was left out, and the rule that it broke."""

    file: str
    record: str
    rule: str


class SkippedRecords:
    """The records that a source left out: counted, listed, and bounded. Safe to use from several threads.

    A record counts once, however many epochs meet it.
    """

    def __init__(self, limit: int = 0):
        self.limit = limit
        self._records: dict[SkippedRecord, None] = {}
        self._lock = threading.Lock()

    def add(self, error: DataError) -> None:
        """Notes that the record of `error` is left out.

        Raises:
            DataError: The bound is reached. With a bound of 0 it is `error` itself.
        """
        record = SkippedRecord(error.file, error.record, error.rule)
        with self._lock:
            if record in self._records:
                return
            if len(self._records) >= self.limit:
                if self.limit == 0:
                    raise error
                raise DataError(
                    error.file,
                    error.record,
                    f"{error.rule}, after as many records as data.skip_bad_records={self.limit} allows were left out",
                    "correct the records or raise data.skip_bad_records",
                )
            self._records[record] = None

    def records(self) -> list[SkippedRecord]:
        """What was skipped so far, sorted, so that parallel reading gives the same list."""
        with self._lock:
            return sorted(self._records)

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)


@runtime_checkable
class Redrawn(Protocol):
    """A source in memory that draws something of each sample; training draws it anew at each reading."""

    def redraw(self, batch: dict[str, tf.Tensor], keys: tf.Tensor) -> dict[str, tf.Tensor]:
        """What `read` gave, with the draw replaced by that of `keys`, uint32 [B]."""
        ...


@runtime_checkable
class Announced(Protocol):
    """A source that is told what will be read, because that takes long."""

    @property
    def ahead(self) -> int:
        """Batches between being told and being read; 0: it need not be told."""
        ...

    def announce(self, index: np.ndarray) -> np.int64:
        """Has the samples at `index`, int64 [B], fetched; returns at once how many they are, and raises nothing."""
        ...


@runtime_checkable
class Source(Protocol):
    """Samples that can be read at any index, by several threads at once."""

    @property
    def schema(self) -> Schema:
        """Names, shapes, types, length."""
        ...

    @property
    def skipped(self) -> SkippedRecords:
        """What was left out so far."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether `read` is a plain gather, so that one call may read many batches cheaply."""
        ...

    @property
    def may_skip(self) -> bool:
        """Whether `read` returns the extra key "sample_weight", float32 [B], 0 for a record left out at reading.

        Sources that validate everything when opened leave bad records out of `schema` instead and say False.
        """
        ...

    @property
    def failure(self) -> DataError | None:
        """The error that ended a read.

        TensorFlow forgets the class of an exception raised inside a graph, so the caller of the pipeline looks here
        when an iterator fails.
        """
        ...

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the samples at `index`, int64 [B], inside or outside a graph: every feature as [B, ...].

        AutoGraph does not convert it: use TensorFlow operations only, or `tf.numpy_function` around Python.
        """
        ...

    def locate(self, index: int) -> str:
        """Names the place of a sample for a message: "train-00001.tfrecord, record 17"."""
        ...
