"""Any number of labels for each sample, each present or not.

Shape legend: B batch, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.config.task import MultiLabelTask
from trainer.data.source import Schema
from trainer.tasks.task import Batch, Task, describe_target, f1_scores, ratio, sample_weight


class MultiLabel(Task):
    """Sigmoid cross-entropy averaged over the labels; micro and macro F1, and how often all labels are right.

    Raises:
        ValueError: The schema's target is no vector of labels.
    """

    def __init__(self, config: MultiLabelTask, schema: Schema):
        super().__init__(schema)
        target = schema.features.get(schema.target or "")
        if target is None or len(target.shape) != 1:
            raise ValueError(
                f"task.name=multi_label needs a vector of zeros and ones for each sample, but the data's target is "
                f"{describe_target(schema)}: choose another task.name, or data whose target is such a vector"
            )
        self._target = schema.target or ""
        self._num_labels = target.shape[0]
        # Comparing logits spares the sigmoid.
        self._threshold = math.log(config.threshold / (1.0 - config.threshold))
        self.output_shape = (self._num_labels,)

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropies in nats, averaged over the labels, and the weights of the samples."""
        targets = tf.cast(batch[self._target], tf.float32)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, tf.cast(outputs, tf.float32))
        losses = tf.reduce_mean(losses, -1)
        weights = sample_weight(batch, losses)
        return losses * weights, weights

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`labels`, [3L]: hits, predictions and occurrences of each label; `samples`, [2]: all labels right, weight."""
        weights = sample_weight(batch, outputs)
        is_predicted = tf.cast(tf.cast(outputs, tf.float32) >= self._threshold, tf.float32)
        is_actual = tf.cast(batch[self._target], tf.float32)
        is_exact = tf.reduce_min(tf.cast(tf.equal(is_predicted, is_actual), tf.float32), -1)
        counts = [is_predicted * is_actual, is_predicted, is_actual]
        return {
            "labels": tf.concat([tf.reduce_sum(count * weights[:, None], 0) for count in counts], 0),
            "samples": tf.stack([tf.reduce_sum(is_exact * weights), tf.reduce_sum(weights)]),
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`micro_f1`, `macro_f1` and `subset_accuracy`; a label neither predicted nor there has an F1 of 0."""
        counts = np.asarray(sums["labels"], np.float64).reshape(3, self._num_labels)
        exact, weight = np.asarray(sums["samples"], np.float64)
        return {
            "micro_f1": float(np.nan_to_num(f1_scores(counts.sum(1)))),
            "macro_f1": float(np.nan_to_num(f1_scores(counts)).mean()),
            "subset_accuracy": float(ratio(exact, weight)),
        }

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`probabilities` [B, L]."""
        return {"probabilities": tf.nn.sigmoid(tf.cast(outputs, tf.float32))}
