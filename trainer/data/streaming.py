"""What sources that read samples from files while training runs have in common.

A batch is loaded by Python inside one `tf.numpy_function`: reading, decompression and resizing release the interpreter
lock, so that the batches that tf.data loads in parallel keep all cores busy, and a record that cannot be used is told
apart from the rest of its batch, which an operation on the whole batch could not do.

Shape legend: B batch, H height, W width, C channels.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.checks import SKIP_HINT, DataError, bad_rows
from trainer.data.source import Schema, SkippedRecords

Sample = Mapping[str, np.ndarray]

WEIGHT = "sample_weight"


class StreamingSource(ABC):
    """A `Source` whose subclass loads samples as numpy arrays.

    Images are kept as uint8 until they are inside the graph, where they become float32 in [0, 1].

    Args:
        schema: Names, shapes, types and length.
        skip_bad_records: The most records that may be left out, each then a sample of zeros with weight 0.
        storage: numpy types in which `load` gives features whose type differs from that of the schema.
    """

    in_memory = False

    def __init__(self, schema: Schema, skip_bad_records: int, storage: Mapping[str, str]):
        self.schema = schema
        self.skipped = SkippedRecords(skip_bad_records)
        self.may_skip = skip_bad_records > 0
        self.failure: DataError | None = None
        self._storage = {name: storage.get(name, feature.dtype) for name, feature in schema.features.items()}
        self._failure_lock = threading.Lock()

    @abstractmethod
    def load(self, index: np.ndarray) -> Sequence[Sample | DataError]:
        """Loads the samples at `index`, int64 [B]: for each its features, or the error that says why it has none."""

    @abstractmethod
    def place(self, index: int) -> tuple[str, str]:
        """Names the file of a sample, and the record in it (empty when the file is the sample)."""

    def locate(self, index: int) -> str:
        """Names the place of a sample for a message."""
        file, record = self.place(index)
        return f"{file}, {record}" if record else file

    def error(self, index: int, rule: str, change: str = SKIP_HINT) -> DataError:
        """Makes the error of the sample at `index`."""
        return DataError(*self.place(index), rule, change)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the samples at `index`, int64 [B], inside or outside a graph: every feature as [B, ...].

        With `may_skip` there is also "sample_weight", float32 [B].
        """
        index = tf.cast(index, tf.int64)
        types = [*self._storage.values(), "float32"]
        *values, weight = tf.numpy_function(self._load_batch, [index], types, stateful=False)
        batch = {}
        for (name, feature), value in zip(self.schema.features.items(), values, strict=True):
            value.set_shape([index.shape[0], *feature.shape])
            if value.dtype == tf.uint8 and feature.dtype == "float32":
                value = tf.cast(value, tf.float32) / 255.0
            batch[name] = tf.cast(value, feature.dtype)
        if self.may_skip:
            weight.set_shape([index.shape[0]])
            batch[WEIGHT] = weight
        return batch

    def _load_batch(self, index: np.ndarray) -> list[np.ndarray]:
        try:
            return self._gather(index)
        except DataError as error:
            with self._failure_lock:
                self.failure = self.failure or error
            raise

    def _gather(self, index: np.ndarray) -> list[np.ndarray]:
        arrays = {
            name: np.zeros((len(index), *feature.shape), self._storage[name])
            for name, feature in self.schema.features.items()
        }
        weight = np.ones(len(index), np.float32)
        errors: dict[int, DataError] = {}
        for row, sample in enumerate(self.load(index)):
            if isinstance(sample, DataError):
                errors[row] = sample
                continue
            for name, values in arrays.items():
                values[row] = sample[name]
        for row, rule in bad_rows(self.schema, arrays).items():
            errors.setdefault(row, self.error(int(index[row]), rule))
        for row in sorted(errors):
            self.skipped.add(errors[row])
            weight[row] = 0
            for values in arrays.values():
                values[row] = 0
        return [*arrays.values(), weight]
