"""Random numbers inside a model, keyed by (seed, step, position of the sample) instead of by a hidden state.

Keras draws a dropout mask from a seed variable that advances with every call: replicas that start from one seed draw
the same mask, and a resume without that variable draws another. Here every draw inside a step is a pure function of the
seed, the step, the call's place in the model, and the position of the sample in the global batch. So the masks are the
same for any number of replicas and micro-batches, and there is nothing to save.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is counter-based: sample `p` of the
global batch owns a fixed range of counters, so a replica that holds samples 32 to 63 starts counting at 32 times the
counters of one sample, and draws what a single device would have drawn for them.

Shape legend: B samples of this call, F random numbers of one sample.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import random as keras_random

_PHILOX = 1
# Philox gives 128 bits for a counter: four 32-bit or eight 16-bit numbers. Samples are padded to whole counters.
_WORDS_PER_COUNTER = 4
_HALF_WORDS_PER_COUNTER = 8
# 2**64 / golden ratio, Knuth's multiplicative hash: neighbouring seeds and steps give unrelated keys.
_GOLDEN = 0x9E3779B97F4A7C15

_original_dropout = keras_random.dropout
_original_uniform = keras_random.uniform
_original_normal = keras_random.normal
_original_draw_seed = keras_random.draw_seed


@dataclass
class _Draws:
    """The draws of one call of the model while it is traced.

    Attributes:
        key: uint64 [1], from seed and step.
        first_sample: int64 scalar, position of this call's first sample in the global batch.
        num_samples: B; None where it is known only when the step runs.
        count: Draws so far: the place of the next one in the model.
    """

    key: tf.Tensor
    first_sample: tf.Tensor
    num_samples: int | None
    count: int = 0

    def counter(self, counters_per_sample: int) -> tf.Tensor:
        """The first counter of this call's samples, uint64 [2], and steps on to the next place in the model."""
        low = tf.cast(self.first_sample, tf.uint64) * tf.constant(counters_per_sample, tf.uint64)
        counter = tf.stack([low, tf.constant(self.count, tf.uint64)])
        self.count += 1
        return counter


_active = threading.local()


@contextlib.contextmanager
def keyed_randomness(seed: int, step: tf.Tensor, first_sample: tf.Tensor, num_samples: int | None) -> Iterator[None]:
    """Within it, `keras.random` and the layers that use it draw by position. For tracing the forward pass.

    Args:
        seed: The run's seed.
        step: int64 scalar, the step that is computed.
        first_sample: int64 scalar, position of the first sample in the global batch.
        num_samples: B, the samples in this call; None where it is known only when the step runs.
    """
    key = tf.constant([(seed * _GOLDEN) % 2**64], tf.uint64) + tf.cast(step, tf.uint64)
    previous = getattr(_active, "draws", None)
    _active.draws = _Draws(key, first_sample, num_samples)
    try:
        yield
    finally:
        _active.draws = previous


def _current() -> _Draws | None:
    return getattr(_active, "draws", None)


@dataclass
class _Rows:
    """A drawn tensor cut into rows, one or more a sample.

    Attributes:
        shape: Of the whole tensor; the first dimension may be known only when the step runs.
        rows: Number of rows.
        numbers: Numbers of a row, static.
        shared: One row for all samples.
    """

    shape: tf.Tensor | list[int]
    rows: tf.Tensor | int
    numbers: int
    shared: bool

    def counters(self, numbers_per_counter: int) -> int:
        """Philox counters of a row."""
        return -(-self.numbers // numbers_per_counter)


def _rows(draws: _Draws, shape: object) -> _Rows | None:
    """Cuts `shape` into rows; None where more than its first dimension is unknown until the step runs.

    A leading dimension that is a multiple of B holds whole samples (a model may fold time into the batch); any other
    shape is one draw that all samples share, so that every replica draws it alike.
    """
    if isinstance(shape, tf.Tensor):
        known = tf.get_static_value(shape, partial=True)
        known = [None] * (shape.shape[0] or 0) if known is None else list(known)
    else:
        known = [tf.get_static_value(d) if isinstance(d, tf.Tensor) else d for d in shape]  # type: ignore[union-attr]
    rest = [int(d) for d in known[1:] if d is not None]
    if not known or len(rest) < len(known) - 1:
        return None
    numbers = math.prod(rest)
    if known[0] is None or draws.num_samples is None:
        return _Rows(tf.convert_to_tensor(shape), shape[0], numbers, False)  # type: ignore[index]
    static = [int(known[0]), *rest]
    if static[0] and static[0] % draws.num_samples == 0:
        return _Rows(static, static[0], numbers, False)
    return _Rows(static, 1, numbers * static[0], True)


def _dropout(inputs, rate, noise_shape=None, seed=None):
    draws = _current()
    if draws is None or rate in (0.0, 1.0):
        return _original_dropout(inputs, rate, noise_shape=noise_shape, seed=seed)
    dynamic = tf.shape(inputs)
    asked = noise_shape or [None] * len(inputs.shape)
    cut = _rows(draws, [(inputs.shape[i] or dynamic[i]) if size is None else size for i, size in enumerate(asked)])
    if cut is None:
        return _original_dropout(inputs, rate, noise_shape=noise_shape, seed=seed)
    words = _draw(draws, cut, tf.raw_ops.StatelessRandomUniformFullIntV2, tf.uint32, _HALF_WORDS_PER_COUNTER)
    # Sixteen random bits decide about one number: half the Philox rounds of a float, and a rate exact to 2**-17.
    low, high = words & tf.constant(0xFFFF, tf.uint32), tf.bitwise.right_shift(words, tf.constant(16, tf.uint32))
    bits = tf.reshape(tf.concat([low, high], axis=1)[:, : cut.numbers], cut.shape)
    dropped = min(65535, max(1, round(rate * 65536)))
    scale = tf.cast(65536 / (65536 - dropped), inputs.dtype)
    return tf.where(bits >= tf.constant(dropped, tf.uint32), inputs * scale, tf.zeros([], inputs.dtype))


def _uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
    draws = _current()
    cut = _rows(draws, shape) if draws else None
    if draws is None or cut is None:
        return _original_uniform(shape, minval, maxval, dtype, seed)
    low, high = tf.cast(minval, dtype or keras.config.floatx()), tf.cast(maxval, dtype or keras.config.floatx())
    return low + _floats(draws, cut, tf.raw_ops.StatelessRandomUniformV2, low.dtype) * (high - low)


def _normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    draws = _current()
    cut = _rows(draws, shape) if draws else None
    if draws is None or cut is None:
        return _original_normal(shape, mean, stddev, dtype, seed)
    mean = tf.cast(mean, dtype or keras.config.floatx())
    return mean + _floats(draws, cut, tf.raw_ops.StatelessRandomNormalV2, mean.dtype) * tf.cast(stddev, mean.dtype)


def _floats(draws: _Draws, cut: _Rows, kernel, dtype: tf.DType) -> tf.Tensor:
    drawn = _draw(draws, cut, kernel, tf.float32, _WORDS_PER_COUNTER)
    return tf.cast(tf.reshape(drawn[:, : cut.numbers], cut.shape), dtype)


def _draw(draws: _Draws, cut: _Rows, kernel, dtype: tf.DType, numbers_per_counter: int) -> tf.Tensor:
    """Words or floats [rows, 4 * counters of a row], starting at the counter of this call's first sample."""
    counters = cut.counters(numbers_per_counter)
    rows_per_sample = 1
    if isinstance(cut.rows, int) and draws.num_samples is not None and not cut.shared:
        rows_per_sample = cut.rows // draws.num_samples
    start = draws.counter(0 if cut.shared else counters * rows_per_sample)
    return kernel(
        shape=[cut.rows, counters * _WORDS_PER_COUNTER], key=draws.key, counter=start, alg=_PHILOX, dtype=dtype
    )


def _draw_seed(seed):
    """For the distributions without a counter per sample: a seed by step, place and position of the first sample."""
    draws = _current()
    if draws is None:
        return _original_draw_seed(seed)
    counter = draws.counter(1)
    mixed = draws.key[0] * tf.constant(_GOLDEN, tf.uint64) + counter[1]
    words = tf.stack([tf.bitwise.right_shift(mixed, tf.constant(33, tf.uint64)), counter[0] + (mixed & 0xFFFF)])
    return tf.cast(words & tf.constant(0x7FFFFFFF, tf.uint64), tf.int32)


# Installed once: outside `keyed_randomness` each calls what it replaces. Layers look these up in Keras's module at call
# time, so that a user's own model needs no change.
keras_random.dropout = _dropout
keras_random.uniform = _uniform
keras_random.normal = _normal
keras_random.draw_seed = _draw_seed
