"""The second half of a step for a worker that holds only some of the optimizer's slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.state_tensors import Contribution
from trainer.strategies.optimizer_shards import OptimizerShards


def sharded_update(step: Step, state: TrainState, shards: OptimizerShards) -> Callable[..., tf.Tensor]:
    """A function (total, whether to empty the window first) that updates the variables whose slots this worker holds.

    Not to be compiled as a whole: what it updates differs from group to group, and nothing shall be traced for it.

    Args:
        step: Whose second half it is; without a loss scale, and without layers that thaw.
        state: Read and written.
        shards: Say what is held.
    """
    apply = step.apply
    rule = _HeldUpdate(step, state, shards)

    def update(total: Contribution, empty_window: tf.Tensor) -> tf.Tensor:
        old = state.read()
        before = old._replace(window=tf.where(empty_window, tf.zeros_like(old.window), old.window))
        new, _ = apply(before, total, step.gradients.changed, rule)  # type: ignore[arg-type]
        state.write(new)
        return tf.constant(True)

    return update


class _HeldUpdate:
    """The optimizer's rule, one variable after the other, each only where its slots are held; as `KernelUpdate`."""

    def __init__(self, step: Step, state: TrainState, shards: OptimizerShards) -> None:
        self._optimizer, self._compiles, self._shards = step.apply.optimizer, step.compiles_update, shards
        self._variables = step.apply.model.trainable_variables
        self._places: Sequence[tf.Variable] = state.placed.trainable  # type: ignore[assignment]
        optimizer = {f"optimizer/{variable.path}": variable for variable in self._optimizer.variables}
        self._slots = [[(optimizer[name], state.variables[name]) for name in unit.slots] for unit in shards.units]
        dealt = {name for unit in shards.units for name in unit.slots}
        [iterations] = optimizer.keys() - dealt
        assert optimizer[iterations] is self._optimizer.iterations, "no rule of ours has more that is shared"
        self._iterations = state.variables[iterations]

    def __call__(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Updates what is held, and the count of updates; returns the learning rate used, float32 scalar."""
        count, updates = self._iterations.read_value(), self._shards.updates.read_value()
        for i, gradient in enumerate(gradients):
            tf.cond(updates[i], lambda i=i, g=gradient: self._update(i, g, count), lambda: tf.constant(False))
        with keras.StatelessScope(state_mapping=[(self._optimizer.iterations, count)]):
            rate = tf.cast(tf.convert_to_tensor(self._optimizer.learning_rate), tf.float32)
        self._iterations.assign_add(1)
        return rate

    def values(self) -> list[tf.Tensor]:
        """Of the variables, after the update; old ones where the slots are not held."""
        return [place.read_value() for place in self._places]

    def _update(self, i: int, gradient: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        variable, place, slots = self._variables[i], self._places[i], self._slots[i]

        def rule(value: tf.Tensor, held: list[tf.Tensor], gradient: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
            mapping = [(variable, value), (self._optimizer.iterations, count)]
            mapping += [(slot, one) for (slot, _), one in zip(slots, held, strict=True)]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                self._optimizer._apply_weight_decay([variable])
                self._optimizer.update_step(gradient, variable, self._optimizer.learning_rate)
                return [scope.get_current_value(one) for one in (variable, *(slot for slot, _ in slots))]  # type: ignore[misc]

        if self._compiles:
            rule = tf.function(rule, jit_compile=True, autograph=False)
        new = rule(place.read_value(), [held.read_value() for _, held in slots], gradient, count)
        for target, value in zip((place, *(held for _, held in slots)), new, strict=True):
            target.assign(value)
        return tf.constant(True)
