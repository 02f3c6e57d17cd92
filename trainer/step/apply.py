"""The second half of a step: from the reduced contribution to the new state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.optimizers.functional import Frozen, apply_update
from trainer.step import loss_scale
from trainer.step.state_tensors import Contribution, StateTensors
from trainer.step.window import LOSS, WEIGHT, WindowLayout


class Applied(NamedTuple):
    """Outcome of a step.

    Attributes:
        state: The new state; to be discarded where `finite` is false.
        finite: bool scalar, whether the loss is finite (and the gradient's norm, where it is computed and no loss scale
            explains it).
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

    @property
    def looks_at_norm(self) -> bool:
        """Whether a step may be found not finite by its gradient although its loss is finite."""
        return self.clip_norm is not None

    def __call__(self, state: StateTensors, total: Contribution, changed: list[int]) -> Applied:
        """The next state.

        Args:
            state: The state before the step.
            total: The sum over all replicas and micro-batches.
            changed: Which non-trainable variables `total.statistics` belongs to.
        """
        finite = tf.math.is_finite(total.sums[LOSS])
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
        if state.loss_scale:
            usable = tf.math.is_finite(norm)
            trainable, optimizer, ema, rate = tf.cond(
                usable, lambda: self._update(state, gradients), lambda: self._keep(state)
            )
            updated = updated._replace(loss_scale=loss_scale.adjusted(state.loss_scale, usable))
            norm, skipped = tf.where(usable, norm, 0.0), 1.0 - tf.cast(usable, tf.float32)
        else:
            trainable, optimizer, ema, rate = self._update(state, gradients)
            finite &= tf.math.is_finite(norm)
            skipped = tf.constant(0.0)
        window = self.window.add(state.window, total.sums, rate, norm, skipped)
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

    def _update(self, state: StateTensors, gradients: list[tf.Tensor]):
        trainable, optimizer, rate = apply_update(
            self.optimizer,
            self.model.trainable_variables,
            state.trainable,
            state.optimizer,
            gradients,
            Frozen(self.thaws, state.step) if self.thaws else None,
        )
        rest = 1.0 - (self.ema_decay or 0.0)
        ema = tuple(
            average + rest * (value - average)
            for average, value in zip(state.ema, trainable if state.ema else (), strict=True)
        )
        return trainable, optimizer, ema, rate

    def _keep(self, state: StateTensors):
        return state.trainable, state.optimizer, state.ema, state.window[-1]


def _changed(
    gradient: tf.Tensor | tf.IndexedSlices, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor | tf.IndexedSlices:
    """A gradient with every element changed. One of rows, in which each is there once, stays one of these rows."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return change(gradient)
