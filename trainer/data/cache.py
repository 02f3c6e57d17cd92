"""Keeps decoded samples, up to a bound, in memory or in a file; exact, and filled by whatever reads first.

Every epoch reads every sample once, so which samples are kept makes no difference to how many are found again: the
first ones are, as many as the bound allows, and nothing is ever evicted.

Shape legend: B batch.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np
import tensorflow as tf

from trainer.data.checks import DataError
from trainer.data.source import SAMPLE_WEIGHT, Schema, SkippedRecords, Source


class CachedSource:
    """A source that reads each of its first samples only once.

    Safe for several reads at once: two that miss the same sample store the same bytes, and a sample counts as stored
    only after its bytes are.

    Args:
        source: What to read from.
        limit: Most bytes to keep.
        on_disk: Keep them in a file in the folder for temporary files (`TMPDIR`); it has no name, so that the system
            frees it when the process ends, however it ends.

    Raises:
        ValueError: The disk has no room for the cache, or the samples have no fixed size.
    """

    in_memory = False

    def __init__(self, source: Source, limit: int, *, on_disk: bool = False):
        self._source = source
        self.schema: Schema = source.schema
        self.skipped: SkippedRecords = source.skipped
        self.may_skip = source.may_skip
        layout = {name: (feature.shape, feature.dtype) for name, feature in self.schema.features.items()}
        if source.may_skip:
            layout[SAMPLE_WEIGHT] = ((), "float32")
        self._types = {name: tf.as_dtype(dtype) for name, (_, dtype) in layout.items()}
        self._shapes = {name: shape for name, (shape, _) in layout.items()}
        sizes = {name: math.prod(self._shapes[name]) * self._types[name].size for name in layout}
        if not all(self._types[name].size for name in layout):
            raise ValueError("data.cache keeps samples of a fixed size, and these hold text: set data.cache=none")
        self.capacity = min(self.schema.num_samples, limit // sum(sizes.values()))
        self._stored = np.zeros(self.capacity, bool)
        buffer = _reserve(self.capacity * sum(sizes.values()), on_disk)
        self._arrays: dict[str, np.ndarray] = {}
        start = 0
        for name, size in sizes.items():
            stop = start + self.capacity * size
            values = np.frombuffer(buffer[start:stop], self._types[name].as_numpy_dtype)
            self._arrays[name] = values.reshape(self.capacity, *self._shapes[name])
            start = stop

    @property
    def failure(self) -> DataError | None:
        """The error that ended a read of the source."""
        return self._source.failure

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the samples at `index`, int64 [B]; those that are not in the cache yet from the source."""
        # What is stored changes from call to call, so TensorFlow must neither fold nor share these calls.
        stored = tf.numpy_function(self._find, [index], tf.bool, stateful=True)
        stored = tf.ensure_shape(stored, index.shape)
        types = list(self._types.values())
        values = tf.cond(
            tf.reduce_all(stored),
            lambda: tf.numpy_function(self._load, [index], types, stateful=True),
            lambda: tf.numpy_function(self._complete, [index, stored, *self._read_others(index, stored)], types),
        )
        return {
            name: tf.ensure_shape(value, [index.shape[0], *self._shapes[name]])
            for name, value in zip(self._types, values, strict=True)
        }

    def locate(self, index: int) -> str:
        """Names the place of a sample for a message."""
        return self._source.locate(index)

    def _read_others(self, index: tf.Tensor, stored: tf.Tensor) -> list[tf.Tensor]:
        batch = self._source.read(tf.boolean_mask(index, tf.logical_not(stored)))
        return [batch[name] for name in self._types]

    def _find(self, index: np.ndarray) -> np.ndarray:
        inside = index < self.capacity
        inside[inside] = self._stored[index[inside]]
        return inside

    def _load(self, index: np.ndarray) -> list[np.ndarray]:
        return [values[index] for values in self._arrays.values()]

    def _complete(self, index: np.ndarray, stored: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
        """Stores the samples that were read because they were not stored, and puts the batch together."""
        batch = []
        keep = index[~stored] < self.capacity
        kept_index = index[~stored][keep]
        for array, read in zip(self._arrays.values(), others, strict=True):
            array[kept_index] = read[keep]
            whole = np.empty((len(index), *array.shape[1:]), array.dtype)
            whole[stored] = array[index[stored]]
            whole[~stored] = read
            batch.append(whole)
        self._stored[kept_index] = True
        return batch


def _reserve(size: int, on_disk: bool) -> memoryview:
    """Reserves bytes, all of them now: a mapped file on a full disk would kill the process later."""
    if not size:
        return memoryview(bytearray())
    if not on_disk:
        return memoryview(mmap.mmap(-1, size))
    with tempfile.TemporaryFile(prefix="phalanx-cache-") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise ValueError(
                f"data.cache=disk needs {size} bytes in {tempfile.gettempdir()}, and there is not that much "
                f"({error.strerror}): lower data.cache_limit, or set TMPDIR to another disk"
            ) from error
        return memoryview(mmap.mmap(file.fileno(), size))
