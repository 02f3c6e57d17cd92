"""A source whose samples are all in memory: `read` is a gather, and everything is validated when it is opened.

Shape legend: B batch, N number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf

from trainer.data.checks import DataError, bad_rows
from trainer.data.source import Schema, SkippedRecords

# Bytes up to which images are kept as float32, ready to use. Above, uint8 takes a quarter of the memory and is
# converted in each batch.
LARGEST_FLOAT_COPY = 512 * 2**20


Place = Callable[[int], tuple[str, str]]
"""Names the file of a sample, and the record in it."""


def numbered(file: object, rows: np.ndarray | None = None, noun: str = "row") -> Place:
    """Makes the `Place` of samples that are numbered in one file.

    Args:
        file: The file or data set.
        rows: The number of each sample there; without it, its index.
        noun: What such a number counts: "row", "image".
    """
    return lambda index: (str(file), f"{noun} {index if rows is None else rows[index]}")


class MemorySource:
    """Samples held as tensors on the host.

    Args:
        schema: Names, shapes and types; `num_samples` is set to what is left after bad samples are taken out.
        arrays: Values by feature, each [N, ...]. uint8 for a float32 feature means [0, 255] for [0, 1].
        place: Where each sample comes from, for messages.
        skipped: Counts the bad samples that are left out, and bounds them. Without it there may be none.
        broken: Rules already known to be broken, by index into the arrays.

    Raises:
        DataError: More samples are bad than may be left out, or all of them.
    """

    in_memory = True
    may_skip = False

    def __init__(
        self,
        schema: Schema,
        arrays: Mapping[str, np.ndarray],
        place: Place,
        *,
        skipped: SkippedRecords | None = None,
        broken: Mapping[int, str] | None = None,
    ):
        self.failure: DataError | None = None
        self.skipped = SkippedRecords() if skipped is None else skipped
        self._place = place
        self._index = np.arange(len(next(iter(arrays.values()))))
        bad = bad_rows(schema, arrays) | dict(broken or {})
        for index in sorted(bad):
            self.skipped.add(DataError(*place(index), bad[index]))
        if bad:
            self._index = np.delete(self._index, list(bad))
            arrays = {name: values[self._index] for name, values in arrays.items()}
            if not len(self._index):
                raise DataError(place(0)[0], "", "every sample in it is bad", "correct the data")
        self.schema = replace(schema, num_samples=len(self._index))
        self._tables = _pack(self.schema, arrays)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers the samples at `index`, int64 [B], inside or outside a graph: every feature as [B, ...]."""
        batch = {}
        for names, table in self._tables:
            values = tf.gather(table, index)
            if values.dtype == tf.uint8:
                values = tf.cast(values, tf.float32) / 255.0
            batch.update(zip(names, tf.unstack(values, axis=1) if len(names) > 1 else [values], strict=True))
        return batch

    def locate(self, index: int) -> str:
        """Names the place of a sample for a message."""
        return ", ".join(self._place(int(self._index[index])))


def _pack(schema: Schema, arrays: Mapping[str, np.ndarray]) -> list[tuple[list[str], tf.Tensor]]:
    """Puts scalar features of one type side by side, so that a batch of a wide table is one gather for each type."""
    scalars: dict[str, list[str]] = {}
    columns = []
    with tf.device("CPU:0"):
        for name, feature in schema.features.items():
            if not feature.shape:
                scalars.setdefault(feature.dtype, []).append(name)
                continue
            values = arrays[name]
            if values.dtype == np.uint8 and feature.dtype == "float32":
                if values.size * 4 <= LARGEST_FLOAT_COPY:
                    values = values.astype(np.float32) / np.float32(255)
            else:
                values = values.astype(feature.dtype, copy=False)
            columns.append(([name], tf.constant(values)))
        for dtype, names in scalars.items():
            table = np.stack([arrays[name].astype(dtype, copy=False) for name in names], axis=1)
            columns.append((names, tf.constant(table if len(names) > 1 else table[:, 0])))
    return columns
