"""One class for each sample.

Shape legend: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.config.task import ClassificationTask
from trainer.data.mixing import MIXED_SHARE, MIXED_TARGET
from trainer.data.source import Schema
from trainer.tasks.ranking import roc_auc
from trainer.tasks.task import Batch, Task, describe_target, f1_scores, ratio, sample_weight


class Classification(Task):
    """Softmax cross-entropy; accuracy, top-k accuracy, recall and F1 averaged over the classes, AUC for two classes.

    Raises:
        ValueError: The schema has no class to predict, or fewer classes than `task.top_k`.
    """

    def __init__(self, config: ClassificationTask, schema: Schema):
        super().__init__(schema)
        target = schema.features.get(schema.target or "")
        if target is None or schema.num_classes is None or target.shape or not target.dtype.startswith(("int", "uint")):
            raise ValueError(
                f"task.name=classification needs one class for each sample, but the data's target is "
                f"{describe_target(schema)}: choose another task.name, or data whose target is a class"
            )
        if config.top_k is not None and config.top_k >= schema.num_classes:
            raise ValueError(
                f"task.top_k={config.top_k} must be below the number of classes, {schema.num_classes}: "
                "lower it, or set it to null"
            )
        self._config = config
        self._target = schema.target or ""
        self._num_classes = schema.num_classes
        self.output_shape = (schema.num_classes,)

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropies in nats, and the weights of the samples."""
        logits, smoothing = tf.cast(outputs, tf.float32), self._config.label_smoothing
        if smoothing or MIXED_SHARE in batch:
            targets = self._shares(batch) * (1.0 - smoothing) + smoothing / self._num_classes
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        else:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch[self._target], logits)
        weights = sample_weight(batch, losses)
        return losses * weights, weights

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`classes`, [3C]: hits, predictions and occurrences of each class; `top_k`, [1]: hits.

        A mixed sample occurs in both of its classes, with the share that it has of each.
        """
        predicted = tf.argmax(outputs, -1, output_type=tf.int32)
        weights = sample_weight(batch, outputs)[:, None]
        is_predicted = tf.one_hot(predicted, self._num_classes) * weights
        is_actual = self._shares(batch)
        counts = [is_predicted * is_actual, is_predicted, is_actual * weights]
        sums = {"classes": tf.concat([tf.reduce_sum(count, 0) for count in counts], 0)}
        if self._config.top_k is not None:
            hits = self._is_in_top(outputs, batch[self._target], self._config.top_k)
            if MIXED_SHARE in batch:
                others = self._is_in_top(outputs, batch[MIXED_TARGET], self._config.top_k)
                hits = batch[MIXED_SHARE] * hits + (1.0 - batch[MIXED_SHARE]) * others
            sums["top_k"] = tf.reduce_sum(hits * weights[:, 0])[None]
        return sums

    def _is_in_top(self, outputs: tf.Tensor, labels: tf.Tensor, top_k: int) -> tf.Tensor:
        """Whether each label is among the k most likely ones, [B]."""
        logits = tf.cast(outputs, tf.float32)
        is_label = tf.one_hot(tf.cast(labels, tf.int32), self._num_classes) > 0
        logit = tf.reduce_sum(tf.where(is_label, logits, 0.0), -1, keepdims=True)
        num_above = tf.reduce_sum(tf.cast(logits > logit, tf.int32), -1)
        return tf.cast(num_above < top_k, tf.float32)

    def _shares(self, batch: Batch) -> tf.Tensor:
        """What each sample has of each class, [B, C]: all of one, or a part of two where samples were mixed."""
        of_class = tf.one_hot(tf.cast(batch[self._target], tf.int32), self._num_classes)
        if MIXED_SHARE not in batch:
            return of_class
        share = batch[MIXED_SHARE][:, None]
        return share * of_class + (1.0 - share) * tf.one_hot(tf.cast(batch[MIXED_TARGET], tf.int32), self._num_classes)

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`accuracy`, `macro_recall` (over classes that occur), `macro_f1` (over those that occur or are predicted)."""
        counts = np.asarray(sums["classes"], np.float64).reshape(3, self._num_classes)
        hits, _, actual = counts
        metrics = {"accuracy": float(ratio(hits.sum(), actual.sum()))}
        if self._config.top_k is not None:
            top_k = np.asarray(sums["top_k"], np.float64)[0]
            metrics[f"top_{self._config.top_k}_accuracy"] = float(ratio(top_k, actual.sum()))
        metrics["macro_recall"] = mean_of_known(ratio(hits, actual))
        metrics["macro_f1"] = mean_of_known(f1_scores(counts))
        return metrics

    def collect(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """With two classes, what the AUC needs: scores, labels and weights, [B] each."""
        if self._num_classes != 2:
            return {}
        logits = tf.cast(outputs, tf.float32)
        return {
            "score": logits[:, 1] - logits[:, 0],
            "label": tf.cast(batch[self._target], tf.int32),
            "weight": sample_weight(batch, logits),
        }

    def collected_metrics(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`auc`, with two classes."""
        if not collected:
            return {}
        return {"auc": roc_auc(collected["score"], collected["label"] == 1, collected["weight"])}

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`probabilities` [B, C] and `classes` [B], the most likely class of each sample."""
        logits = tf.cast(outputs, tf.float32)
        return {"probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, -1)}


def mean_of_known(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
