"""A source whose samples are all in memory: `read` is a gather, and everything is validated when it is opened.

Shape legend: B batch, N number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf

from trainer.data.checks import DataError, bad_rows
from trainer.data.source import Schema, SkippedRecords

# Bytes up to which images are kept as float32, ready to use. Above, uint8 takes a quarter of the memory and is
# converted in each batch.
LARGEST_FLOAT_COPY = 512 * 2**20


class MemorySource:
    """Samples held as tensors on the host.

    Args:
        schema: Names, shapes and types; `num_samples` is set to what is left after bad samples are taken out.
        arrays: Values by feature, each [N, ...]. uint8 for a float32 feature means [0, 255] for [0, 1].
        file: Where the samples come from, for messages.
        rows: Number of each sample in that place, int64 [N].
        noun: What such a number counts: "row", "image", "line".
        skip_bad_records: The most samples that may be left out.

    Raises:
        DataError: More samples than that are bad.
    """

    in_memory = True
    may_skip = False
    failure: DataError | None = None

    def __init__(
        self,
        schema: Schema,
        arrays: Mapping[str, np.ndarray],
        *,
        file: object,
        rows: np.ndarray | None = None,
        noun: str = "row",
        skip_bad_records: int = 0,
    ):
        self.skipped = SkippedRecords(skip_bad_records)
        self._file, self._noun = str(file), noun
        self._rows = np.arange(schema.num_samples) if rows is None else rows
        bad = bad_rows(schema, arrays)
        for row, rule in bad.items():
            self.skipped.add(DataError(self._file, self._record(row), rule))
        if bad:
            good = np.ones(len(self._rows), bool)
            good[list(bad)] = False
            arrays = {name: values[good] for name, values in arrays.items()}
            self._rows = self._rows[good]
            if not len(self._rows):
                raise DataError(self._file, "", "every sample in it is bad", "correct the data")
        self.schema = replace(schema, num_samples=len(self._rows))
        self._columns = _pack(self.schema, arrays)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers the samples at `index`, int64 [B], inside or outside a graph: every feature as [B, ...]."""
        batch = {}
        for names, table in self._columns:
            values = tf.gather(table, index)
            if values.dtype == tf.uint8:
                values = tf.cast(values, tf.float32) / 255.0
            batch.update(zip(names, tf.unstack(values, axis=1) if len(names) > 1 else [values], strict=True))
        return batch

    def locate(self, index: int) -> str:
        """Names the place of a sample for a message."""
        return f"{self._file}, {self._record(index)}"

    def _record(self, index: int) -> str:
        return f"{self._noun} {self._rows[index]}"


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
