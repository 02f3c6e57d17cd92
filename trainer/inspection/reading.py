"""Reads samples of a source once, evenly by position, as numpy arrays.

Shape legend: N samples chosen, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainer.data.source import SAMPLE_WEIGHT, Schema, Source

MOST_SAMPLES = 500_000
"""Samples that are read unless somebody asks for more or less."""

MOST_NUMBERS = 2**30
"""Numbers that are read unless somebody asks for so many samples: of large images some thousand samples have them."""

_BATCH_NUMBERS = 2**21
_BATCH_SAMPLES = 8192


def numbers_of_sample(schema: Schema) -> int:
    """Numbers in one sample, over all its features."""
    return max(1, sum(math.prod(feature.shape) for feature in schema.features.values()))


def chosen_positions(schema: Schema, most: int | None) -> np.ndarray:
    """Positions to read, int64 [N], ascending: all, or as many as may be read, evenly spread.

    Args:
        schema: Of the source.
        most: Samples to read; without it, as many as `MOST_SAMPLES` and `MOST_NUMBERS` allow.
    """
    if most is None:
        most = max(1, min(MOST_SAMPLES, MOST_NUMBERS // numbers_of_sample(schema)))
    num_samples = schema.num_samples
    if num_samples <= most:
        return np.arange(num_samples)
    return np.arange(most) * num_samples // most


def read_batches(source: Source, positions: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Reads the samples at `positions`, [N], in batches; records that the source leaves out are not among them.

    Yields:
        Positions [B], and the features by name, each [B, ...].

    Raises:
        DataError: The source cannot be read on.
    """
    size = max(1, min(_BATCH_SAMPLES, _BATCH_NUMBERS // numbers_of_sample(source.schema)))
    for start in range(0, len(positions), size):
        part = positions[start : start + size]
        try:
            with tf.device("CPU:0"):
                batch = {name: values.numpy() for name, values in source.read(tf.constant(part, tf.int64)).items()}
        except tf.errors.OpError:
            if source.failure is not None:
                raise source.failure from None
            raise
        weight = batch.pop(SAMPLE_WEIGHT, None)
        if weight is not None and not weight.all():
            part = part[weight != 0]
            batch = {name: values[weight != 0] for name, values in batch.items()}
        if len(part):
            yield part, {name: batch[name] for name in source.schema.features}
