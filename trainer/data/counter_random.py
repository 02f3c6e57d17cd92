"""Random numbers that are a pure function of (seed, step, position): no generator state to save, none to share.

Each sample hashes its own counter, so that a worker makes the numbers of its own slice of the global batch and no
others, and gets the same ones whatever the number of workers. TensorFlow's stateless generators take one seed for a
whole tensor and would have to make the numbers of the global batch on every worker.

The hash is lowbias32 of Chris Wellons, "Prospecting for Hash Functions" (2018).

Shape legend: N samples.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable

import numpy as np
import tensorflow as tf

GOLDEN_RATIO = 0x9E3779B9


def hash_words(words: tf.Tensor) -> tf.Tensor:
    """Mixes each word, uint32 of any shape, into one whose every bit depends on all bits of the first."""
    sixteen = _word(16)
    words = tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, sixteen)) * _word(0x7FEB352D)
    words = tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, _word(15))) * _word(0x846CA68B)
    return tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, sixteen))


def hash_word(word: int) -> int:
    """Does the same to one Python integer, of which the lowest 32 bits count."""
    word &= 0xFFFFFFFF
    word = (word ^ word >> 16) * 0x7FEB352D & 0xFFFFFFFF
    word = (word ^ word >> 15) * 0x846CA68B & 0xFFFFFFFF
    return word ^ word >> 16


def sample_keys(seed: int, *counters: tf.Tensor) -> tf.Tensor:
    """Makes one key for each combination of counters.

    Args:
        seed: Any integer; its lowest 64 bits count.
        counters: int64 tensors of one shape, not negative: the step and the position in the global batch.

    Returns:
        uint32, in the shape of the counters.
    """
    keys = _word(hash_word(seed) + (seed >> 32))
    for counter in counters:
        for word in (counter, tf.bitwise.right_shift(counter, tf.constant(32, tf.int64))):
            keys = hash_words(tf.bitwise.bitwise_xor(keys * _word(GOLDEN_RATIO), tf.cast(word, tf.uint32)))
    return keys


def uniform(keys: tf.Tensor, draw: int, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Draws numbers from [0, 1), float32 [N, *shape].

    Args:
        keys: uint32 [N], from `sample_keys`.
        draw: Which draw of the sample it is: equal draws give equal numbers.
        shape: Shape of what one sample draws.
    """
    keys = hash_words(tf.bitwise.bitwise_xor(keys, _word(hash_word((draw + 1) * GOLDEN_RATIO))))
    if shape:
        offsets = np.arange(math.prod(shape), dtype=np.uint32).reshape(shape) * np.uint32(GOLDEN_RATIO)
        keys = hash_words(tf.reshape(keys, [-1] + [1] * len(shape)) + tf.constant(offsets))
    # 24 bits are what a float32 holds exactly, so 1.0 never comes out.
    return tf.cast(tf.bitwise.right_shift(keys, _word(8)), tf.float32) * tf.constant(2.0**-24)


def normal(keys: tf.Tensor, draw: int, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Draws from the standard normal distribution, float32 [N, *shape], in steps of 1 / 4096 of probability.

    Looks up quantiles instead of computing them: TensorFlow's logarithm and cosine differ in their last bit by where an
    element lies in its tensor, so a slice of a batch would not get the numbers of the whole batch.
    """
    return tf.gather(tf.constant(_normal_quantiles()), tf.cast(uniform(keys, draw, shape) * 4096.0, tf.int32))


def from_table(keys: tf.Tensor, draw: int, quantile: Callable[[np.ndarray], np.ndarray]) -> tf.Tensor:
    """Draws from any distribution, float32 [N], one of 4,096 equally likely numbers.

    Args:
        keys: As in `uniform`.
        draw: As in `uniform`; equal draws are the same place in every distribution.
        quantile: The inverse of the distribution function, computed once by numpy.
    """
    table = quantile((np.arange(4096) + 0.5) / 4096).astype(np.float32)
    return tf.gather(tf.constant(table), tf.cast(uniform(keys, draw) * 4096.0, tf.int32))


@functools.cache
def _normal_quantiles() -> np.ndarray:
    """The middles of 4,096 equally likely parts of the standard normal distribution, scaled to variance 1."""
    distribution = statistics.NormalDist()
    quantiles = np.array([distribution.inv_cdf((i + 0.5) / 4096) for i in range(4096)])
    return (quantiles / quantiles.std()).astype(np.float32)


def _word(value: int) -> tf.Tensor:
    return tf.constant(value & 0xFFFFFFFF, tf.uint32)
