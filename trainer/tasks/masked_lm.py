"""What stood where tokens are hidden (Devlin et al., "BERT", 2018).

Shape legend: B batch, T context, V vocabulary with the mask.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer.config.task import MaskedLmTask
from trainer.data.source import Schema
from trainer.tasks.task import Batch, Task, describe_target, ratio, sample_weight


class MaskedLm(Task):
    """Cross-entropy, accuracy and perplexity of the tokens that are to be predicted.

    Raises:
        ValueError: The schema does not say what stood where.
    """

    def __init__(self, config: MaskedLmTask, schema: Schema):
        super().__init__(schema)
        target = schema.features.get(schema.target or "")
        if target is None or len(target.shape) != 1 or schema.num_classes is None or not target.dtype.startswith("int"):
            raise ValueError(
                f"task.name={config.name} needs the hidden token of each position, but the data's target is "
                f"{describe_target(schema)}: set data.masked of data.name=text, or choose another task.name"
            )
        self._target = schema.target or ""
        self._vocabulary = schema.num_classes
        self.output_shape = (*target.shape, schema.num_classes)

    def _losses(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross-entropy at every position in nats, 0 where nothing is predicted; where something is; float32 [B, T].

        Written out as that of the next token is, for the same reasons.
        """
        logits, targets = tf.cast(outputs, tf.float32), batch[self._target]
        is_predicted = tf.cast(targets >= 0, tf.float32)
        shifted = logits - tf.stop_gradient(tf.reduce_max(logits, -1, keepdims=True))
        is_target = tf.equal(tf.range(self._vocabulary, dtype=targets.dtype), tf.expand_dims(targets, -1))
        target_logits = tf.reduce_sum(tf.where(is_target, shifted, 0.0), -1)
        losses = tf.math.log(tf.reduce_sum(tf.exp(shifted), -1)) - target_logits
        return losses * is_predicted, is_predicted

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Sums over what is predicted, and the numbers of these tokens, so that the mean is the loss of a token."""
        losses, is_predicted = self._losses(outputs, batch)
        weights = sample_weight(batch, losses)
        return tf.reduce_sum(losses, -1) * weights, tf.reduce_sum(is_predicted, -1) * weights

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`tokens`, [3]: cross-entropy, tokens predicted right, tokens to predict."""
        losses, is_predicted = self._losses(outputs, batch)
        weights = sample_weight(batch, losses)
        targets = batch[self._target]
        is_hit = tf.cast(tf.equal(tf.argmax(outputs, -1, output_type=targets.dtype), targets), tf.float32)
        terms = (losses, is_hit * is_predicted, is_predicted)
        return {"tokens": tf.stack([tf.reduce_sum(tf.reduce_sum(term, -1) * weights) for term in terms])}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`accuracy` and `perplexity` of the hidden tokens."""
        loss, hits, count = np.asarray(sums["tokens"], np.float64)
        with np.errstate(over="ignore"):
            return {"accuracy": float(ratio(hits, count)), "perplexity": float(np.exp(ratio(loss, count)))}

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`logits` [B, T, V]: what each position holds, whether it is hidden or not."""
        return {"logits": tf.cast(outputs, tf.float32)}
