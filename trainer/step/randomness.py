"""Random numbers inside a model, keyed by (seed, step, position of the sample) instead of by a hidden state.

Keras draws a dropout mask from a seed variable that advances with every call: replicas that start from one seed draw
the same mask, and a resume without that variable draws another. Here every draw inside a step is a pure function of the
seed, the step, the call's place in the model, and the position of the sample in the global batch. So the masks are the
same for any number of replicas and micro-batches, and there is nothing to save.

Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is counter-based: sample `p` of the global
batch owns a fixed range of counters, so a replica that holds samples 32 to 63 starts counting at 32 times the counters
of one sample, and draws what a single device would have drawn for them.

Shape legend: B samples of this call, F random numbers of one sample.
"""

from __future__ import annotations

import contextlib
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
        num_samples: B, static.
        count: Draws so far: the place of the next one in the model.
    """

    key: tf.Tensor
    first_sample: tf.Tensor
    num_samples: int
    count: int = 0

    def counter(self, counters_per_sample: int) -> tf.Tensor:
        """The first counter of this call's samples, uint64 [2], and steps on to the next place in the model."""
        low = tf.cast(self.first_sample, tf.uint64) * tf.constant(counters_per_sample, tf.uint64)
        counter = tf.stack([low, tf.constant(self.count, tf.uint64)])
        self.count += 1
        return counter


_active = threading.local()


@contextlib.contextmanager
def keyed_randomness(seed: int, step: tf.Tensor, first_sample: tf.Tensor, num_samples: int) -> Iterator[None]:
    """Within it, `keras.random` and the layers that use it draw by position. For tracing the forward pass.

    Args:
        seed: The run's seed.
        step: int64 scalar, the step that is computed.
        first_sample: int64 scalar, position of the first sample in the global batch.
        num_samples: B, the samples in this call; static.
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


def _static_shape(shape: object) -> list[int] | None:
    """`shape` as integers, or None where a dimension is only known when the step runs."""
    if isinstance(shape, tf.Tensor):
        value = tf.get_static_value(shape, partial=True)
        dimensions = [] if value is None else list(value)
    else:
        dimensions = [tf.get_static_value(d) if isinstance(d, tf.Tensor) else d for d in shape]  # type: ignore[union-attr]
    if any(d is None for d in dimensions) or (isinstance(shape, tf.Tensor) and not dimensions):
        return None
    return [int(d) for d in dimensions]


def _per_sample(draws: _Draws, shape: list[int], numbers_per_counter: int) -> tuple[int, int, int]:
    """How `shape` falls into samples: (rows, numbers of a row, counters of a row).

    A leading dimension that is a multiple of B holds whole samples (a model may fold time into the batch); any other
    shape is one draw that all samples share, so that every replica draws it alike.
    """
    size = 1
    for dimension in shape:
        size *= dimension
    rows = draws.num_samples if shape and shape[0] and shape[0] % draws.num_samples == 0 else 1
    numbers = size // rows
    return rows, numbers, -(-numbers // numbers_per_counter)


def _counter(draws: _Draws, rows: int, counters: int) -> tf.Tensor:
    """The counter to start from; a draw that all samples share starts at the same one on every replica."""
    shared = rows == 1 and draws.num_samples > 1
    return draws.counter(0 if shared else counters)


def _dropout(inputs, rate, noise_shape=None, seed=None):  # noqa: ANN001, ANN202
    draws = _current()
    if draws is None or rate in (0.0, 1.0):
        return _original_dropout(inputs, rate, noise_shape=noise_shape, seed=seed)
    full = noise_shape or [None] * len(inputs.shape)
    shape = _static_shape([inputs.shape[i] if d is None else d for i, d in enumerate(full)])
    if shape is None:
        return _original_dropout(inputs, rate, noise_shape=noise_shape, seed=seed)
    rows, numbers, counters = _per_sample(draws, shape, _HALF_WORDS_PER_COUNTER)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[rows, counters * _WORDS_PER_COUNTER],
        key=draws.key,
        counter=_counter(draws, rows, counters),
        alg=_PHILOX,
        dtype=tf.uint32,
    )
    # Sixteen random bits decide about one number: half the Philox rounds of a float, and a rate exact to 2**-17.
    low, high = words & tf.constant(0xFFFF, tf.uint32), tf.bitwise.right_shift(words, tf.constant(16, tf.uint32))
    bits = tf.reshape(tf.concat([low, high], axis=1)[:, :numbers], shape)
    dropped = min(65535, max(1, round(rate * 65536)))
    keep = bits >= tf.constant(dropped, tf.uint32)
    scale = tf.cast(65536 / (65536 - dropped), inputs.dtype)
    return tf.where(keep, inputs * scale, tf.zeros([], inputs.dtype))


def _uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):  # noqa: ANN001, ANN202
    draws, static = _current(), _static_shape(shape)
    if draws is None or static is None:
        return _original_uniform(shape, minval, maxval, dtype, seed)
    low, high = tf.cast(minval, dtype or keras.config.floatx()), tf.cast(maxval, dtype or keras.config.floatx())
    return low + _floats(draws, static, low.dtype, tf.raw_ops.StatelessRandomUniformV2) * (high - low)


def _normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):  # noqa: ANN001, ANN202
    draws, static = _current(), _static_shape(shape)
    if draws is None or static is None:
        return _original_normal(shape, mean, stddev, dtype, seed)
    mean = tf.cast(mean, dtype or keras.config.floatx())
    return mean + _floats(draws, static, mean.dtype, tf.raw_ops.StatelessRandomNormalV2) * tf.cast(stddev, mean.dtype)


def _floats(draws: _Draws, shape: list[int], dtype: tf.DType, kernel) -> tf.Tensor:  # noqa: ANN001
    rows, numbers, counters = _per_sample(draws, shape, _WORDS_PER_COUNTER)
    drawn = kernel(
        shape=[rows, counters * _WORDS_PER_COUNTER],
        key=draws.key,
        counter=_counter(draws, rows, counters),
        alg=_PHILOX,
        dtype=tf.float32,
    )
    return tf.cast(tf.reshape(drawn[:, :numbers], shape), dtype)


def _draw_seed(seed):  # noqa: ANN001, ANN202
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
