"""Keras optimizers as pure functions: tensors in, tensors out.

On TensorFlow Keras assigns to variables inside `tf.distribute` and refuses `stateless_apply`. A pure update can be
compiled, carried through a loop, and run beside any strategy; reduction, clipping, averaging and accumulation are the
step's, which does them once and in the right order. The update rules themselves stay Keras's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer


class _PureUpdates:
    """Keras's own backend-independent methods, in place of TensorFlow's, which write to `tf.Variable`s.

    `keras.Variable.assign` is intercepted by `keras.StatelessScope`; an assignment to a `tf.Variable` is not.
    """

    assign = BaseOptimizer.assign
    assign_add = BaseOptimizer.assign_add
    assign_sub = BaseOptimizer.assign_sub
    _var_key = BaseOptimizer._var_key
    _apply_weight_decay = BaseOptimizer._apply_weight_decay


def make_functional(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Changes `optimizer`, which must not be built yet, so that `apply_update` works on it; returns it.

    Raises:
        ValueError: The optimizer is built, so that its slots are registered under other keys.
    """
    if optimizer.built:
        raise ValueError("an optimizer is made functional before it is built")
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (_PureUpdates, kind), {})
    return optimizer


class Frozen(NamedTuple):
    """Variables that are not changed yet.

    Attributes:
        thaws: For each variable, the first step that changes it.
        step: int64 scalar, the number of this step.
    """

    thaws: Sequence[int]
    step: tf.Tensor


def apply_update(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    values: Sequence[tf.Tensor],
    optimizer_values: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    frozen: Frozen | None = None,
) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...], tf.Tensor]:
    """One update, without side effects.

    Args:
        optimizer: Functional and built on `variables`.
        variables: The trainable variables, which name the slots.
        values: Their values.
        optimizer_values: Values of `optimizer.variables`.
        gradients: One a variable, reduced and clipped.
        frozen: Variables that keep their value and slots; None where all are changed. Once thawed, a variable is
            updated as if its first step were the optimizer's: a rule that corrects young moments must know their age.

    Returns:
        New values, new optimizer values, and the learning rate used, float32 scalar.
    """
    mapping = [*zip(variables, values, strict=True), *zip(optimizer.variables, optimizer_values, strict=True)]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        rate = optimizer.learning_rate
        optimizer._apply_weight_decay(list(variables))
        for i, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            if frozen is None or not frozen.thaws[i]:
                optimizer.update_step(gradient, variable, rate)
            else:
                _update_once_thawed(scope, optimizer, variable, values[i], gradient, rate, frozen.thaws[i], frozen.step)
        optimizer.iterations.assign_add(1)  # type: ignore[union-attr]
        new_values: tuple = tuple(scope.get_current_value(v) for v in variables)
        new_optimizer_values: tuple = tuple(scope.get_current_value(v) for v in optimizer.variables)
    return new_values, new_optimizer_values, tf.cast(tf.convert_to_tensor(rate), tf.float32)


def _update_once_thawed(
    scope: keras.StatelessScope,
    optimizer: keras.optimizers.Optimizer,
    variable: keras.Variable,
    value: tf.Tensor,
    gradient: tf.Tensor,
    rate: tf.Tensor,
    thaw: int,
    step: tf.Tensor,
) -> None:
    """Updates a variable and its slots from step `thaw` on; before it they stay, whatever weight decay would do."""
    iterations = optimizer.iterations
    count: tf.Tensor = scope.get_current_value(iterations)  # type: ignore[assignment]
    before = [scope.get_current_value(slot) for slot in optimizer.variables]
    scope.add_update((iterations, tf.maximum(count - thaw, 0)))
    optimizer.update_step(gradient, variable, rate)
    scope.add_update((iterations, count))
    is_frozen = step < thaw
    scope.add_update((variable, tf.where(is_frozen, value, scope.get_current_value(variable))))
    for slot, old in zip(optimizer.variables, before, strict=True):
        new = scope.get_current_value(slot)
        if new is not old:
            scope.add_update((slot, tf.where(is_frozen, old, new)))
