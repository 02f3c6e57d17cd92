"""What the pure functions of a step exchange: the training state as tensors, and the contribution of a replica."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class StateTensors(NamedTuple):
    """All that a step reads and changes. Tuples follow the order of the model's and the optimizer's variables.

    Attributes:
        step: int64 scalar, steps done; the step to be computed has this 0-based number.
        trainable: The trainable weights.
        non_trainable: Statistics, counters and constants of the layers.
        optimizer: Iterations and slots.
        ema: Averaged copies of `trainable`; empty when off.
        loss_scale: Empty, or (scale float32 scalar, steps since it last changed int32 scalar).
        window: float32 [K], sums since the last logged step; see `trainer.step.window`.
    """

    step: tf.Tensor
    trainable: tuple[tf.Tensor, ...]
    non_trainable: tuple[tf.Tensor, ...]
    optimizer: tuple[tf.Tensor, ...]
    ema: tuple[tf.Tensor, ...]
    loss_scale: tuple[tf.Tensor, ...]
    window: tf.Tensor


class Contribution(NamedTuple):
    """What a part of the global batch adds to the step; contributions of several parts are added up.

    Attributes:
        gradients: Of the loss summed over the part's samples, divided by the global batch size and times the loss
            scale. Where the part is the whole batch it is divided by the sum of the weights instead, which is final.
        statistics: Changes of the non-trainable variables that the forward pass changed, such as moving averages.
        sums: float32 vector: sum of the losses, sum of the weights, then the sums of the task's metrics.
    """

    gradients: tuple[tf.Tensor, ...]
    statistics: tuple[tf.Tensor, ...]
    sums: tf.Tensor


def add(one: Contribution, other: Contribution) -> Contribution:
    """The contribution of two parts together."""
    return tf.nest.map_structure(tf.add, one, other)
