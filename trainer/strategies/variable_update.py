"""The second half of a step on the variables of one device: read, updated and written where they lie."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.state_tensors import Contribution, StateTensors


def variable_update(step: Step, state: TrainState) -> Callable[..., tf.Tensor]:
    """A function (total, whether to empty the window first) that updates the variables and says whether it was finite.

    To be compiled as a whole: XLA then changes the variables in place. It is meant for a total whose loss is finite;
    where the gradient's norm can still make it not finite, the variables stay as they are.

    Args:
        step: Whose second half it is.
        state: Read and written.
    """
    is_program = step.xla == "loop"
    choose = _select if step.compiles_update else _switch

    def update(total: Contribution, empty_window: tf.Tensor | None = None) -> tf.Tensor:
        old = before = state.read()
        if empty_window is not None:
            window = tf.where(empty_window, tf.zeros_like(old.window), old.window)
            before = old._replace(window=window)
        new, finite = step.finish(before, total)
        if is_program or step.apply.looks_at_norm:
            new = choose(finite, new, old)
        state.write(new)
        return finite

    return update


def _switch(condition: tf.Tensor, new: StateTensors, old: StateTensors) -> StateTensors:
    """One of two states, by pointer: outside of XLA a cond over identities copies nothing."""
    return tf.cond(condition, lambda: new, lambda: old)


def _select(condition: tf.Tensor, new: StateTensors, old: StateTensors) -> StateTensors:
    """One of two states, element by element: XLA fuses it with the update, where a cond would copy both."""
    return tf.nest.map_structure(lambda one, other: tf.where(condition, one, other), new, old)
