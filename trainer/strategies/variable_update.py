"""The second half of a step on the variables of a device: read, updated and written where they lie."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainer.optimizers.kernels import KernelUpdate
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.state_tensors import Contribution, StateTensors


def variable_update(
    step: Step, state: TrainState, component: Callable[[tf.Variable], tf.Variable] = lambda variable: variable
) -> Callable[..., tf.Tensor]:
    """A function (total, whether to empty the window first) that updates the variables and says whether it was finite.

    To be compiled as a whole: XLA then changes the variables in place. It is meant for a total that `Apply.accepts`;
    only where a whole loop is one program must it look itself, and leave the variables as they are.

    Args:
        step: Whose second half it is.
        state: Read and written.
        component: Picks a replica's own copy of a distributed variable.
    """
    is_program = step.xla == "loop"

    def update(total: Contribution, empty_window: tf.Tensor | None = None) -> tf.Tensor:
        old = state.read(component)
        new, finite = step.finish(_emptied(old, empty_window), total)
        # Beside a clipped norm too, where nothing else needs it: without it XLA fuses the rest in another way, and
        # the last bits of a curve would be others than before.
        if is_program or step.apply.clip_norm is not None:
            new = _select(finite, new, old)
        state.write(new, component)
        return finite if is_program else tf.constant(True)

    return update


def kernel_update(
    step: Step, state: TrainState, component: Callable[[tf.Variable], tf.Variable] = lambda variable: variable
) -> Callable[..., tf.Tensor]:
    """The same by TensorFlow's update kernels, not to be compiled; only for a total that `Apply.accepts`.

    Args:
        step: Whose second half it is; its optimizer has kernels, and there is no loss scale.
        state: Read and written.
        component: Picks a replica's own copy of a distributed variable.
    """
    apply, placed = step.apply, state.placed
    kernels = KernelUpdate(
        apply.optimizer,
        apply.model.trainable_variables,
        [component(variable) for variable in placed.trainable],  # type: ignore[arg-type]
        [component(variable) for variable in placed.optimizer],  # type: ignore[arg-type]
    )

    def update(total: Contribution, empty_window: tf.Tensor | None = None) -> tf.Tensor:
        before = _emptied(state.read(component), empty_window)
        new, _ = apply(before, total, step.gradients.changed, kernels)
        state.write(new, component)
        return tf.constant(True)

    return update


def compiled_update(
    step: Step, state: TrainState, component: Callable[[tf.Variable], tf.Variable] = lambda variable: variable
) -> Callable[[Contribution], tf.Tensor]:
    """The one of the two that the step asks for, compiled as it says; only for a total that `Apply.accepts`.

    Each replica needs one of its own: its variables are part of it.
    """
    if step.compilation.kernels:
        return kernel_update(step, state, component)
    update = variable_update(step, state, component)
    return tf.function(update, jit_compile=True, autograph=step.converts) if step.compiles_update else update


def _emptied(state: StateTensors, empty_window: tf.Tensor | None) -> StateTensors:
    """The state before a step that begins a window, if it does."""
    if empty_window is None:
        return state
    return state._replace(window=tf.where(empty_window, tf.zeros_like(state.window), state.window))


def _select(condition: tf.Tensor, new: StateTensors, old: StateTensors) -> StateTensors:
    """One of two states, element by element: XLA fuses it with the update, where a cond would copy both."""
    return tf.nest.map_structure(lambda one, other: tf.where(condition, one, other), new, old)
