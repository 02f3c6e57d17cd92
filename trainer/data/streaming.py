"""What sources that read samples from files while training runs have in common.

A batch is loaded by Python inside a `tf.numpy_function`, which tells a record that cannot be used from the rest of its
batch. It does little there, since one thread at a time runs Python: images stay encoded and are decoded in the graph.

Shape legend: B batch, H height, W width, C channels.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.data.checks import SKIP_HINT, DataError, bad_rows
from trainer.data.image_decoding import decode_images
from trainer.data.image_faults import image_fault, is_cut_off
from trainer.data.source import SAMPLE_WEIGHT, Schema, SkippedRecords

Sample = Mapping[str, np.ndarray | bytes]


@dataclass(frozen=True)
class Stored:
    """How `StreamingSource.load` gives the features.

    Attributes:
        types: numpy types of those whose type is not that of the schema.
        images: Those given as encoded images, which the schema has as float32 [H, W, C].
        resize: How images are brought to their size, see `decode_images`.
    """

    types: Mapping[str, str]
    images: frozenset[str] = frozenset()
    resize: str = "crop"


class StreamingSource(ABC):
    """A `Source` whose subclass loads samples as numpy arrays and encoded images.

    Args:
        schema: Names, shapes, types and length.
        skip_bad_records: The most records that may be left out, each then a sample of zeros with weight 0.
        stored: How `load` gives the features.
    """

    in_memory = False

    def __init__(self, schema: Schema, skip_bad_records: int, stored: Stored):
        self.schema = schema
        self.skipped = SkippedRecords(skip_bad_records)
        self.may_skip = skip_bad_records > 0
        self.failure: DataError | None = None
        self._stored = stored
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
        *values, weight = tf.numpy_function(self._load_batch, [index], [*self._types(), tf.float32], stateful=False)
        weight.set_shape([index.shape[0]])
        batch = {}
        for (name, feature), value in zip(self.schema.features.items(), values, strict=True):
            if name in self._stored.images:
                height, width, channels = feature.shape
                value.set_shape([index.shape[0]])
                batch[name], decoded = decode_images(value, (height, width), channels, self._stored.resize)
                weight = self._without_undecoded(index, name, value, decoded, weight)
            else:
                value.set_shape([index.shape[0], *feature.shape])
                batch[name] = tf.cast(value, feature.dtype)
        if self.may_skip:
            batch[SAMPLE_WEIGHT] = weight
        elif self._stored.images:
            # Nothing may be skipped, so the weights say nothing; but the check that made them has to run.
            with tf.control_dependencies([weight]):
                batch = {name: tf.identity(value) for name, value in batch.items()}
        return batch

    def _types(self) -> list[tf.DType]:
        stored = self._stored
        return [
            tf.string if name in stored.images else tf.as_dtype(stored.types.get(name, feature.dtype))
            for name, feature in self.schema.features.items()
        ]

    def _without_undecoded(
        self, index: tf.Tensor, name: str, encoded: tf.Tensor, decoded: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor:
        """Sets the weight of images that could not be decoded to 0, and notes them as skipped."""
        undecoded = tf.logical_and(tf.logical_not(decoded), weight > 0)

        def note() -> tf.Tensor:
            def skip(index: np.ndarray, encoded: np.ndarray, undecoded: np.ndarray, weight: np.ndarray) -> np.ndarray:
                errors = {}
                for row in np.flatnonzero(undecoded).tolist():
                    errors[row] = self.error(int(index[row]), f"feature {name!r}: {image_fault(bytes(encoded[row]))}")
                return self._skip(errors, weight)

            lighter = tf.numpy_function(skip, [index, encoded, undecoded, weight], tf.float32, stateful=False)
            return tf.ensure_shape(lighter, weight.shape)

        return tf.cond(tf.reduce_any(undecoded), note, lambda: weight)

    def _load_batch(self, index: np.ndarray) -> list[np.ndarray]:
        arrays = {}
        for (name, feature), dtype in zip(self.schema.features.items(), self._types(), strict=True):
            is_image = name in self._stored.images
            # Type "S" of numpy would drop the zero bytes at the end of an image.
            arrays[name] = (
                np.full(len(index), b"", object)
                if is_image
                else np.zeros((len(index), *feature.shape), dtype.as_numpy_dtype)
            )
        errors: dict[int, DataError] = {}
        for row, sample in enumerate(self._load(index)):
            if isinstance(sample, DataError):
                errors[row] = sample
                continue
            for name, values in arrays.items():
                values[row] = sample[name]
            for name in self._stored.images:
                # TensorFlow would find it out as well, but libjpeg prints a line of its own about each try.
                if is_cut_off(encoded := bytes(sample[name])):
                    errors[row] = self.error(int(index[row]), f"feature {name!r}: {image_fault(encoded)}")
        numbers = {name: values for name, values in arrays.items() if name not in self._stored.images}
        for row, rule in bad_rows(self.schema, numbers).items():
            errors.setdefault(row, self.error(int(index[row]), rule))
        weight = self._skip(errors, np.ones(len(index), np.float32))
        for row in errors:
            for name, values in arrays.items():
                values[row] = b"" if name in self._stored.images else 0
        return [*arrays.values(), weight]

    def _load(self, index: np.ndarray) -> Sequence[Sample | DataError]:
        try:
            return self.load(index)
        except DataError as error:
            self._fail(error)
            raise

    def _skip(self, errors: Mapping[int, DataError], weight: np.ndarray) -> np.ndarray:
        """Notes bad rows as skipped and gives the weights with 0 for them."""
        weight = weight.copy()
        for row in sorted(errors):
            try:
                self.skipped.add(errors[row])
            except DataError as error:
                self._fail(error)
                raise
            weight[row] = 0
        return weight

    def _fail(self, error: DataError) -> None:
        with self._failure_lock:
            self.failure = self.failure or error
