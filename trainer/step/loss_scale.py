"""Dynamic loss scaling for float16 (Micikevicius et al., "Mixed Precision Training", ICLR 2018)."""

from __future__ import annotations

import tensorflow as tf

INITIAL = 2.0**15
GROWTH_INTERVAL = 2000
_SMALLEST = 1.0
_LARGEST = 2.0**24


def adjusted(loss_scale: tuple[tf.Tensor, ...], usable: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The scale after a step: halved when the gradient overflowed, doubled after 2,000 steps without.

    Args:
        loss_scale: (scale float32 scalar, steps since its last change int32 scalar).
        usable: bool scalar, whether the loss and every reduced gradient are finite; one decision for all replicas.
    """
    scale, steps = loss_scale
    grow = tf.logical_and(usable, steps + 1 >= GROWTH_INTERVAL)
    factor = tf.where(usable, tf.where(grow, 2.0, 1.0), 0.5)
    changed = tf.logical_or(grow, tf.logical_not(usable))
    return tf.clip_by_value(scale * factor, _SMALLEST, _LARGEST), tf.where(changed, 0, steps + 1)


def explains(loss_scale: tuple[tf.Tensor, ...], usable: tf.Tensor) -> tf.Tensor:
    """bool scalar: whether a step that is not usable may be left out, because a smaller scale may make the next one so.

    At the smallest scale nothing was multiplied: what is not finite then is so by itself.
    """
    return tf.logical_and(tf.logical_not(usable), loss_scale[0] > _SMALLEST)
