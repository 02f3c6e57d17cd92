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
from trainer.tasks.decision import calibrated, halves
from trainer.tasks.ranking import pr_auc, roc_auc
from trainer.tasks.task import Batch, Task, describe_target, f1_scores, ratio, sample_weight


class Classification(Task):
    """Softmax cross-entropy; accuracy, top-k accuracy, recall and F1 averaged over the classes.

    Where one class is looked for, also the areas under its ROC and its precision-recall curve, and a threshold.

    Raises:
        ValueError: The schema has no class to predict, not those that `task` names, or fewer than `task.top_k`.

    Attributes:
        positive: Number of the class that is looked for; None where there is none.
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
        names = schema.class_names or tuple(map(str, range(schema.num_classes)))
        self.positive = 1 if schema.num_classes == 2 else None
        if config.positive is not None:
            self.positive = _number_of(config.positive, names, "task.positive")
        if config.target_precision is not None and self.positive is None:
            raise ValueError(
                f"task.target_precision={config.target_precision:g} is that of one class, and the data has "
                f"{len(names)}: set task.positive to one of {_listed(names)}"
            )
        self._class_weights = np.ones(len(names), np.float32)
        for name, weight in config.class_weights.items():
            self._class_weights[_number_of(name, names, "task.class_weights")] = weight

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropies in nats, and the weights of the samples, those of their classes included.

        With `task.focal_gamma`, times (1 - p)**gamma for the probability p of the sample's class (Lin et al., "Focal
        loss for dense object detection", 2017).
        """
        logits, smoothing = tf.cast(outputs, tf.float32), self._config.label_smoothing
        if smoothing or MIXED_SHARE in batch:
            targets = self._shares(batch) * (1.0 - smoothing) + smoothing / self._num_classes
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        else:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch[self._target], logits)
        if self._config.focal_gamma:
            # Never quite 0, where a power below 1 has an infinite gradient.
            losses *= tf.maximum(-tf.math.expm1(-losses), 1e-7) ** self._config.focal_gamma
        weights = sample_weight(batch, losses)
        if self._config.class_weights:
            weights *= tf.gather(tf.constant(self._class_weights), batch[self._target])
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
        """Where one class is looked for: its log-odds, whether it is there, and weights; [B] each.

        With `task.target_precision`, also which half of the samples each belongs to.
        """
        if self.positive is None:
            return {}
        logits = tf.cast(outputs, tf.float32)
        others = [logits[:, i] for i in range(self._num_classes) if i != self.positive]
        rest = others[0] if len(others) == 1 else tf.reduce_logsumexp(tf.stack(others, -1), -1)
        collected = {
            "score": logits[:, self.positive] - rest,
            "positive": tf.cast(tf.equal(tf.cast(batch[self._target], tf.int32), self.positive), tf.int32),
            "weight": sample_weight(batch, logits),
        }
        if self._config.target_precision is not None:
            collected["half"] = halves({name: batch[name] for name in self.input_features})
        return collected

    def collected_metrics(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Where one class is looked for, `auc` and `pr_auc`, and what `trainer.tasks.decision` calibrates."""
        if not collected:
            return {}
        ranked = collected["score"], collected["positive"] == 1, collected["weight"]
        metrics = {"auc": roc_auc(*ranked), "pr_auc": pr_auc(*ranked)}
        if self._config.target_precision is not None:
            metrics |= calibrated(*ranked, collected["half"], self._config.target_precision)
        return metrics

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`probabilities` [B, C] and `classes` [B], the most likely class of each sample."""
        logits = tf.cast(outputs, tf.float32)
        return {"probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, -1)}


def mean_of_known(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _number_of(name: str, names: tuple[str, ...], setting: str) -> int:
    if name not in names:
        raise ValueError(f"{setting} names the class {name!r}, which the data lacks: use one of {_listed(names)}")
    return names.index(name)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
