"""Weights that stay zero, or equal, through training: the fine-tuning of sparse and of clustered models.

What is tied is read off the weights before each update: zeros are zeros, and equal weights are one. So there is no mask
and no assignment to keep, and a run that is resumed, or a worker that takes another's place, ties what the one before
tied. That the members of a cluster take the mean of their updates is the shared weight of Han, Mao and Dally, "Deep
compression", 2016, section 3; they add the gradients up, which with rules like Adam's differs by a rate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from trainer.config.tied import TiedConfig


@dataclass(frozen=True)
class Tying:
    """Corrects an update.

    Attributes:
        tied: For each trainable variable, whether its weights are tied.
        zeros: Weights that are 0 stay 0.
        equal: Weights of one variable that are equal stay equal. Not to be compiled with XLA: how many differ is
            found out at each step.
    """

    tied: Sequence[bool]
    zeros: bool
    equal: bool

    def __call__(self, before: Sequence[tf.Tensor], after: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """The new values, tied as the old ones are."""
        found = zip(self.tied, before, after, strict=True)
        return tuple(self._tied(old, new) if tied else new for tied, old, new in found)

    def _tied(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        if not self.equal:
            return tf.where(old == 0, old, new)
        values, group = tf.unique(tf.reshape(old, [-1]))
        moved = tf.math.unsorted_segment_mean(tf.reshape(new - old, [-1]), group, tf.size(values))
        values = tf.where(values == 0, values, values + moved) if self.zeros else values + moved
        return tf.reshape(tf.gather(values, group), tf.shape(old))


def tie_variables(variables: Sequence[keras.Variable], config: TiedConfig | None) -> Tying | None:
    """What a config ties.

    Args:
        variables: The trainable ones.
        config: The `tied` section.

    Raises:
        ValueError: A pattern fits no variable.
    """
    if config is None:
        return None
    tied = [False] * len(variables)
    for pattern in config.variables:
        found = [i for i, variable in enumerate(variables) if re.search(pattern, variable.path)]
        if not found:
            some = ", ".join(variable.path for variable in variables[:3])
            raise ValueError(
                f"tied.variables has the pattern {pattern!r}, which fits no trainable variable: there are {some}, ..."
            )
        for i in found:
            tied[i] = True
    return Tying(tuple(tied), config.zeros, config.equal)
