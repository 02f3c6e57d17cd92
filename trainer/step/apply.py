"""The second half of a step: from the reduced contribution to the new state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.optimizers.functional import Frozen, apply_update
from trainer.optimizers.kernels import KernelUpdate
from trainer.step import loss_scale
from trainer.step.state_tensors import Contribution, StateTensors
from trainer.step.tying import Tying
from trainer.step.window import LOSS, WEIGHT, WindowLayout


class Applied(NamedTuple):
    """Outcome of a step.

    Attributes:
        state: The new state; to be discarded where `finite` is false.
        finite: bool scalar, whether the loss and the gradients are finite, or a loss scale explains that they are not.
    """

    state: StateTensors
    finite: tf.Tensor


@dataclass
class Apply:
    """Turns the sum of all contributions into the next state; the same on every replica.

    Clipping, finiteness and loss scale are decided on the reduced gradient: decided by a replica alone they would
    differ between replicas, and weights would drift apart in silence.

    Attributes:
        optimizer: Made functional by `trainer.optimizers.functional`.
        window: Layout of the window.
        batch_size: Samples of the global batch.
        num_contributions: How many micro-batches were added up; statistics are their mean.
        whole: As in `Gradients.whole`.
        clip_norm: Largest global norm, or None.
        clip_value: Largest absolute value of an element, or None.
        ema_decay: Of the averaged weights, or None.
        thaws: For each trainable variable, the first step that changes it; empty where all are trained from the start.
        tying: Keeps weights tied, or None.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    window: WindowLayout
    batch_size: int
    num_contributions: int
    whole: bool
    clip_norm: float | None
    clip_value: float | None
    ema_decay: float | None
    thaws: Sequence[int] = ()
    tying: Tying | None = None

    def accepts(self, loss_scale_of_state: Sequence[tf.Tensor], total: Contribution) -> tf.Tensor:
        """bool scalar: whether `total` is finite, or a loss scale explains that it is not: what `Applied.finite` says.

        For whoever decides before the second half, so that XLA changes the variables in place in it.
        """
        usable = is_finite(total)
        if loss_scale_of_state:
            usable |= loss_scale.explains(tuple(loss_scale_of_state), usable)
        return usable

    def __call__(
        self, state: StateTensors, total: Contribution, changed: list[int], kernels: KernelUpdate | None = None
    ) -> Applied:
        """The next state.

        Args:
            state: The state before the step.
            total: The sum over all replicas and micro-batches.
            changed: Which non-trainable variables `total.statistics` belongs to.
            kernels: Change the weights and the optimizer's slots where they lie, which are None in the next state then.
        """
        usable = is_finite(total)
        gradients = self._mean(state, total)
        norm = tf.constant(0.0)
        if self.clip_value is not None:
            limit = self.clip_value
            # tf.clip_by_value turns NaN into the limit, which would hide it.
            gradients = [
                _changed(g, lambda v: tf.where(tf.math.is_nan(v), v, tf.clip_by_value(v, -limit, limit)))
                for g in gradients
            ]
        if self.clip_norm is not None or state.loss_scale:
            norm = tf.linalg.global_norm(gradients)
        if self.clip_norm is not None:
            factor = self.clip_norm / tf.maximum(norm, self.clip_norm)
            gradients = [_changed(g, lambda v: v * factor) for g in gradients]
        # A rule with momentum moves every row, whether the batch touches it or not.
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        non_trainable = self._statistics(state, total, changed)
        updated = state._replace(step=state.step + 1, non_trainable=non_trainable)
        sums = total.sums
        if state.loss_scale:
            trainable, optimizer, ema, rate = tf.cond(
                usable, lambda: self._update(state, gradients), lambda: self._keep(state)
            )
            if non_trainable:
                non_trainable = tf.cond(usable, lambda: non_trainable, lambda: state.non_trainable)
            scale = loss_scale.adjusted(state.loss_scale, usable)
            updated = updated._replace(non_trainable=non_trainable, loss_scale=scale)
            norm, skipped = tf.where(usable, norm, 0.0), 1.0 - tf.cast(usable, tf.float32)
            # A loss that overflowed is no loss: its samples count in no mean.
            sums = tf.where(tf.math.is_finite(sums[LOSS]), sums, tf.zeros_like(sums))
            finite = usable | loss_scale.explains(state.loss_scale, usable)
        else:
            trainable, optimizer, ema, rate = self._update(state, gradients, kernels)
            finite, skipped = usable, tf.constant(0.0)
        window = self.window.add(state.window, sums, rate, norm, skipped)
        return Applied(updated._replace(trainable=trainable, optimizer=optimizer, ema=ema, window=window), finite)

    def _mean(self, state: StateTensors, total: Contribution) -> list[tf.Tensor]:
        factors = []
        if not self.whole:
            factors.append(self.batch_size / tf.maximum(total.sums[WEIGHT], 1e-30))
        if state.loss_scale:
            factors.append(1.0 / state.loss_scale[0])
        gradients: list = list(total.gradients)
        for factor in factors:
            gradients = [_changed(g, lambda v, factor=factor: v * tf.cast(factor, v.dtype)) for g in gradients]
        return gradients

    def _statistics(self, state: StateTensors, total: Contribution, changed: list[int]) -> tuple[tf.Tensor, ...]:
        values = list(state.non_trainable)
        for i, change in zip(changed, total.statistics, strict=True):
            if change.dtype.is_floating:
                values[i] += change / self.num_contributions
            else:
                values[i] += change // self.num_contributions
        return tuple(values)

    def _update(self, state: StateTensors, gradients: list[tf.Tensor], kernels: KernelUpdate | None = None):
        if kernels is not None:
            rate = kernels(gradients)
            ema = self._averaged(state, kernels.values() if state.ema else ())
            return (None,) * len(state.trainable), (None,) * len(state.optimizer), ema, rate
        trainable, optimizer, rate = apply_update(
            self.optimizer,
            self.model.trainable_variables,
            state.trainable,
            state.optimizer,
            gradients,
            Frozen(self.thaws, state.step) if self.thaws else None,
        )
        if self.tying is not None:
            trainable = self.tying(state.trainable, trainable)
        return trainable, optimizer, self._averaged(state, trainable if state.ema else ()), rate

    def _averaged(self, state: StateTensors, trainable: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        rest = 1.0 - (self.ema_decay or 0.0)
        return tuple(average + rest * (value - average) for average, value in zip(state.ema, trainable, strict=True))

    def _keep(self, state: StateTensors):
        return state.trainable, state.optimizer, state.ema, state.window[-1]


def is_finite(total: Contribution) -> tf.Tensor:
    """bool scalar: whether the loss, every gradient and every change of a statistic are finite.

    By the sum of the squares, one pass that needs no memory. A gradient whose square is beyond float32 counts as not
    finite: the second moments of Adam would be infinite after it.
    """
    tensors = [*total.gradients, *(change for change in total.statistics if change.dtype.is_floating)]
    return tf.math.is_finite(total.sums[LOSS]) & tf.math.is_finite(_sum_of_squares(tensors))


def _sum_of_squares(tensors: Sequence[tf.Tensor | tf.IndexedSlices]) -> tf.Tensor:
    squares = [tf.zeros([])]
    for tensor in tensors:
        values = tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor
        if values.dtype not in (tf.float32, tf.float64):
            values = tf.cast(values, tf.float32)
        squares.append(tf.cast(tf.nn.l2_loss(values), tf.float32))
    return tf.add_n(squares)


def _changed(
    gradient: tf.Tensor | tf.IndexedSlices, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor | tf.IndexedSlices:
    """A gradient with every element changed. One of rows, in which each is there once, stays one of these rows."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return change(gradient)
