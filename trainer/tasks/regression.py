"""One number, or several, for each sample.

Shape legend: B batch, K numbers to predict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.config.task import RegressionTask
from trainer.data.source import Schema
from trainer.tasks.task import Batch, Task, describe_target, ratio, sample_weight


class Regression(Task):
    """Squared or absolute error. The model answers in the target's own unit, and so do the metrics.

    Where the schema knows the target's standard deviation, the loss counts errors in units of it, so that learning
    rates mean the same whatever the unit is.

    Raises:
        ValueError: The schema has no number to predict.
    """

    def __init__(self, config: RegressionTask, schema: Schema):
        super().__init__(schema)
        target = schema.features.get(schema.target or "")
        if target is None or not target.dtype.startswith(("float", "bfloat")):
            raise ValueError(
                f"task.name=regression needs a number to predict for each sample, but the data's target is "
                f"{describe_target(schema)}: choose another task.name, or data whose target is a number"
            )
        self._config = config
        self._target = schema.target or ""
        self._num_targets = math.prod(target.shape)
        self.target_mean = target.mean or 0.0
        self.target_std = target.std or 1.0
        if target.mean is not None and target.std is not None:
            self.output_units = (target.mean, target.std)
        self.output_shape = (self._num_targets,)

    def _errors(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Errors and targets, float32 [B, K]."""
        targets = tf.reshape(tf.cast(batch[self._target], tf.float32), [-1, self._num_targets])
        return tf.reshape(tf.cast(outputs, tf.float32), [-1, self._num_targets]) - targets, targets

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Errors in units of the target's standard deviation, averaged over the K numbers; weights of the samples."""
        errors, _ = self._errors(outputs, batch)
        errors *= 1.0 / self.target_std
        losses = tf.reduce_mean(tf.square(errors) if self._config.loss == "squared" else tf.abs(errors), -1)
        weights = sample_weight(batch, losses)
        return losses * weights, weights

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`weight` [1], and [K] each: squares and absolutes of errors; targets (less their mean) and their squares."""
        errors, targets = self._errors(outputs, batch)
        # The variance of numbers far from 0 would drown in the rounding of their squares.
        centred = targets - self.target_mean
        weights = sample_weight(batch, errors)
        terms = {
            "squared": tf.square(errors),
            "absolute": tf.abs(errors),
            "target": centred,
            "target_squared": centred**2,
        }
        sums = {name: tf.reduce_sum(term * weights[:, None], 0) for name, term in terms.items()}
        return {"weight": tf.reduce_sum(weights)[None], **sums}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`mse`, `mae`, `rmse`, and `r2`, the share of each number's variance that is explained, averaged over the K.

        A number that never varies has an r2 of 1 if it is always met and else 0, as in scikit-learn.
        """
        total = {name: np.asarray(value, np.float64) for name, value in sums.items()}
        weight = total["weight"][0]
        mse = float(np.mean(ratio(total["squared"], np.full(self._num_targets, weight))))
        mae = float(np.mean(ratio(total["absolute"], np.full(self._num_targets, weight))))
        variation = total["target_squared"] - ratio(total["target"] ** 2, np.full(self._num_targets, weight))
        explained = 1.0 - ratio(total["squared"], np.maximum(variation, 0.0))
        explained = np.where(variation > 0, explained, np.where(total["squared"] == 0, 1.0, 0.0))
        r2 = float(np.mean(explained)) if weight else float("nan")
        return {"mse": mse, "mae": mae, "rmse": math.sqrt(mse), "r2": r2}

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`values` [B, K]."""
        return {"values": tf.cast(outputs, tf.float32)}
