"""Whether two samples are of the same class, also where training never saw the class: faces, for example.

Shape legend: B batch, D width of an embedding, C classes of the training data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.config.verification import VerificationTask
from trainer.data.source import Schema
from trainer.models.class_centres import with_class_centres, without_class_centres
from trainer.tasks.pairs import pair_metrics
from trainer.tasks.task import Batch, Task, describe_target, ratio, sample_weight

_LARGEST_COSINE = 1.0 - 1e-6  # beyond it the sine's gradient has no bound


class Verification(Task):
    """Softmax over the cosines to the classes' centres, with an additive angular margin; pairs of held-out samples.

    Held-out samples may be of classes that training has not: those have labels from C on and no loss.

    Raises:
        ValueError: The schema has no class to tell apart.
    """

    def __init__(self, config: VerificationTask, schema: Schema):
        super().__init__(schema)
        target = schema.features.get(schema.target or "")
        if target is None or schema.num_classes is None or target.shape or not target.dtype.startswith(("int", "uint")):
            raise ValueError(
                f"task.name=verification needs one class for each sample, but the data's target is "
                f"{describe_target(schema)}: choose another task.name, or data whose target is a class"
            )
        self._config = config
        self._target = schema.target or ""
        self._num_classes = schema.num_classes
        self.output_shape = (config.width,)

    def trained(self, model: keras.Model) -> keras.Model:
        """The model with the centres of the classes, [B, D + C]."""
        return with_class_centres(model, self, self._num_classes, self._config.sub_centres)

    def served(self, model: keras.Model) -> keras.Model:
        """The model without them, [B, D]."""
        return without_class_centres(model)

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropies in nats, and the weights of the samples.

        The angle t to a sample's own class counts as t + margin (Deng et al. 2019). Where that would pass pi, its
        cosine goes on falling in a straight line, so that a sample on the far side is still drawn back.
        """
        cosines = tf.clip_by_value(self._cosines(outputs), -_LARGEST_COSINE, _LARGEST_COSINE)
        margin = self._config.margin
        sines = tf.sqrt(1.0 - tf.square(cosines))
        further = cosines * math.cos(margin) - sines * math.sin(margin)
        further = tf.where(cosines > -math.cos(margin), further, cosines - margin * math.sin(margin))
        logits = self._config.scale * tf.where(self._is_class(batch), further, cosines)
        of_class = tf.reduce_sum(tf.where(self._is_class(batch), logits, 0.0), -1)
        weights = self._weights(outputs, batch)
        return (tf.reduce_logsumexp(logits, -1) - of_class) * weights, weights

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`classes`, [2]: samples of the trained classes that are nearest to their own one, and all, by weight."""
        nearest = tf.argmax(self._cosines(outputs), -1, output_type=tf.int32)
        is_hit = tf.cast(tf.equal(nearest, tf.cast(batch[self._target], tf.int32)), tf.float32)
        weights = self._weights(outputs, batch)
        return {"classes": tf.stack([tf.reduce_sum(is_hit * weights), tf.reduce_sum(weights)])}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`class_accuracy`: how often the nearest class is the right one; not where no class was trained."""
        hits, total = np.asarray(sums["classes"], np.float64)
        return {"class_accuracy": float(ratio(hits, total))} if total else {}

    def collect(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """Embeddings [B, D], and classes and weights, [B] each."""
        return {
            "embedding": self._embeddings(outputs),
            "label": tf.cast(batch[self._target], tf.int32),
            "weight": sample_weight(batch, outputs),
        }

    def collected_metrics(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """As in `trainer.tasks.pairs`."""
        is_there = collected["weight"] > 0
        return pair_metrics(collected["embedding"][is_there], collected["label"][is_there], self._config.false_accepts)

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`embedding` [B, D], of length 1: the product of two is the cosine to hold against a threshold."""
        return {"embedding": self._embeddings(outputs)}

    def _embeddings(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(outputs[:, : self._config.width], tf.float32)

    def _cosines(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(outputs[:, self._config.width :], tf.float32)

    def _is_class(self, batch: Batch) -> tf.Tensor:
        """Which class each sample is of, bool [B, C]; none where training has not its class."""
        return tf.equal(tf.range(self._num_classes), tf.cast(batch[self._target], tf.int32)[:, None])

    def _weights(self, outputs: tf.Tensor, batch: Batch) -> tf.Tensor:
        is_trained = tf.cast(tf.cast(batch[self._target], tf.int32) < self._num_classes, tf.float32)
        return sample_weight(batch, outputs) * is_trained
