"""From which probability on a sample counts as the class that is looked for.

The threshold is found on one half of the samples and measured on the other one: on the samples that it was fitted to it
would look better than it is. A sample's half follows from its values, so that it is the same whatever the batches, the
workers and the order are.

Shape legend: B batch, N samples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.tasks.ranking import threshold_of_precision


def halves(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Which half each sample belongs to, int32 [B] of 0 and 1: a bit of a hash of its features, [B, ...] each.

    Multiply-shift (Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair problem", 1997) over
    the bits of all values.
    """
    total = tf.constant(0, tf.int32)
    for name in sorted(features):
        values = features[name]
        bits = tf.bitcast(values, tf.int32) if values.dtype == tf.float32 else tf.cast(values, tf.int32)
        count = int(tf.TensorShape(values.shape[1:]).num_elements() or 1)
        bits = tf.reshape(bits, [tf.shape(bits)[0], count])
        total += tf.reduce_sum(bits * tf.constant(_odd_numbers(name, count)), -1)
    # The lowest bits of a number reach the highest ones by the first product, the highest ones by the second.
    total = tf.bitwise.bitwise_xor(total, tf.bitwise.right_shift(total, 15)) * tf.constant(0x2C1B3C6D)
    return tf.cast(total < 0, tf.int32)


def calibrated(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray, half: np.ndarray, target: float
) -> dict[str, float]:
    """The threshold that reaches a precision, and how it does.

    Args:
        scores: Log-odds of the positive class, [N].
        positive: bool [N].
        weights: [N]; padding has 0.
        half: [N], of `halves`: 0 to find the threshold on, 1 to measure it on.
        target: The precision, in (0, 1].

    Returns:
        `threshold`, a probability, and `threshold_precision` and `threshold_recall` on the other half; NaN where no
        threshold reaches the target.
    """
    fitted, measured = half == 0, half == 1
    lowest = threshold_of_precision(scores[fitted], positive[fitted], target, weights[fitted])
    called = measured & (scores >= lowest)
    hits = float(weights[called & positive].sum())

    def share(chosen: np.ndarray) -> float:
        total = float(weights[chosen].sum())
        return hits / total if total > 0 and not math.isnan(lowest) else float("nan")

    return {
        "threshold": float(1.0 / (1.0 + np.exp(-lowest))),
        "threshold_precision": share(called),
        "threshold_recall": share(measured & positive),
    }


def _odd_numbers(name: str, count: int) -> np.ndarray:
    """As many odd numbers, int32 [count]; the same for the same name."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(-(2**31), 2**31, count, np.int64)
    return (drawn | 1).astype(np.int32)
