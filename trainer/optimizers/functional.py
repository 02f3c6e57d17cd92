"""Keras optimizers as pure functions: tensors in, tensors out.

On TensorFlow Keras assigns to variables inside `tf.distribute` and refuses `stateless_apply`. A pure update can be
compiled, carried through a loop, and run beside any strategy; reduction, clipping, averaging and accumulation are the
step's, which does them once and in the right order. The update rules themselves stay Keras's own.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def apply_update(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    values: Sequence[tf.Tensor],
    optimizer_values: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...], tf.Tensor]:
    """One update, without side effects.

    Args:
        optimizer: Functional and built on `variables`.
        variables: The trainable variables, which name the slots.
        values: Their values.
        optimizer_values: Values of `optimizer.variables`.
        gradients: One a variable, reduced and clipped.

    Returns:
        New values, new optimizer values, and the learning rate used, float32 scalar.
    """
    mapping = [*zip(variables, values, strict=True), *zip(optimizer.variables, optimizer_values, strict=True)]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        rate = optimizer.learning_rate
        optimizer._apply_weight_decay(list(variables))
        for gradient, variable in zip(gradients, variables, strict=True):
            optimizer.update_step(gradient, variable, rate)
        optimizer.iterations.assign_add(1)  # type: ignore[union-attr]
        new_values: tuple = tuple(scope.get_current_value(v) for v in variables)
        new_optimizer_values: tuple = tuple(scope.get_current_value(v) for v in optimizer.variables)
    return new_values, new_optimizer_values, tf.cast(tf.convert_to_tensor(rate), tf.float32)
