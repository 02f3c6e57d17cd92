"""TensorFlow's own update kernels: one pass over a variable, its slots and its gradient, in place.

Keras writes an update rule as a dozen operations, each a pass over memory of its own. On a CPU whose convolutions run
outside of XLA that is the half of an update which XLA would save, without the hand-over to XLA.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


def has_kernels(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether there is a kernel that does what the optimizer's rule says."""
    rule = type(optimizer).update_step
    if rule is keras.optimizers.Adam.update_step:
        return not optimizer.amsgrad  # type: ignore[attr-defined]
    return rule is keras.optimizers.SGD.update_step


class KernelUpdate:
    """An optimizer's update by kernels.

    Args:
        optimizer: One that `has_kernels`, functional and built.
        variables: The model's trainable variables, which the optimizer was built on.
        places: Where their values lie, float32.
        slots: Where those of `optimizer.variables` lie.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        places: Sequence[tf.Variable],
        slots: Sequence[tf.Variable],
    ) -> None:
        self._optimizer, self._variables, self._places = optimizer, variables, places
        self._slots = {id(slot): place for slot, place in zip(optimizer.variables, slots, strict=True)}
        self._kernel = self._adam if isinstance(optimizer, keras.optimizers.Adam) else self._momentum

    def __call__(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Updates the variables, the slots and the count of updates; returns the learning rate used, float32 scalar."""
        optimizer, iterations = self._optimizer, self._slots[id(self._optimizer.iterations)]
        count = iterations.read_value()
        with keras.StatelessScope(state_mapping=[(optimizer.iterations, count)]):
            rate = tf.cast(tf.convert_to_tensor(optimizer.learning_rate), tf.float32)
        number = tf.cast(count + 1, tf.float32)
        for i, (variable, place, gradient) in enumerate(zip(self._variables, self._places, gradients, strict=True)):
            if optimizer.weight_decay is not None and optimizer._use_weight_decay(variable):
                place.assign_sub(place * optimizer.weight_decay * rate)
            self._kernel(i, place, gradient, rate, number)
        iterations.assign_add(1)
        return rate

    def values(self) -> list[tf.Tensor]:
        """Of the variables, after the update."""
        return [place.read_value() for place in self._places]

    def _adam(self, i: int, place: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor, number: tf.Tensor) -> None:
        rule = self._optimizer
        first, second = rule.beta_1, rule.beta_2  # type: ignore[attr-defined]
        tf.raw_ops.ResourceApplyAdam(
            var=place.handle,
            m=self._slots[id(rule._momentums[i])].handle,  # type: ignore[attr-defined]
            v=self._slots[id(rule._velocities[i])].handle,  # type: ignore[attr-defined]
            beta1_power=tf.pow(first, number),
            beta2_power=tf.pow(second, number),
            lr=rate,
            beta1=first,
            beta2=second,
            epsilon=rule.epsilon,  # type: ignore[attr-defined]
            grad=gradient,
        )

    def _momentum(self, i: int, place: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor, number: tf.Tensor) -> None:
        rule = self._optimizer
        if not rule.momentum:  # type: ignore[attr-defined]
            tf.raw_ops.ResourceApplyGradientDescent(var=place.handle, alpha=rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=place.handle,
            accum=self._slots[id(rule.momentums[i])].handle,  # type: ignore[attr-defined]
            lr=rate,
            grad=gradient,
            momentum=rule.momentum,  # type: ignore[attr-defined]
            use_nesterov=rule.nesterov,  # type: ignore[attr-defined]
        )
