"""The next token, at every position.

Shape legend: B batch, T context, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf

from trainer.config.task import LanguageModellingTask
from trainer.data.source import Schema
from trainer.tasks.task import Batch, Task, ratio, sample_weight

TOKENS = "tokens"
NUM_BYTES = 256


class LanguageModelling(Task):
    """Cross-entropy of the next token; perplexity, token accuracy, and bits per byte where tokens are bytes.

    Where a sample holds several documents, what follows the end of one is not predicted.

    Raises:
        ValueError: The schema has no token sequences.
    """

    def __init__(self, config: LanguageModellingTask, schema: Schema):
        super().__init__(schema)
        tokens = schema.features.get(TOKENS)
        if tokens is None or len(tokens.shape) != 1 or schema.num_classes is None:
            features = ", ".join(f"{name!r} {list(feature.shape)}" for name, feature in schema.features.items())
            raise ValueError(
                f"task.name={config.name} needs a feature {TOKENS!r} of shape [context + 1], but the data "
                f"has {features}: choose another task.name, or data of token sequences"
            )
        self._vocabulary = schema.num_classes
        self._separator = tokens.separator
        context = tokens.shape[0] - 1
        self.input_features = {TOKENS: replace(tokens, shape=(context,))}
        self.output_shape = (context, self._vocabulary)

    def inputs(self, batch: Batch) -> tf.Tensor:
        """All tokens but the last, int32 [B, T]."""
        return batch[TOKENS][:, :-1]

    def _losses(self, outputs: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Cross-entropy at every position in nats, float32 [B, T].

        Written out because XLA computes it in half the time of TensorFlow's fused operation at this size, and the
        place of the target is found by comparison because scattering its gradient is slow on every kind of device.
        """
        logits, targets = tf.cast(outputs, tf.float32), batch[TOKENS][:, 1:]
        shifted = logits - tf.stop_gradient(tf.reduce_max(logits, -1, keepdims=True))
        is_target = tf.equal(tf.range(self._vocabulary, dtype=targets.dtype), tf.expand_dims(targets, -1))
        target_logits = tf.reduce_sum(tf.where(is_target, shifted, 0.0), -1)
        return tf.math.log(tf.reduce_sum(tf.exp(shifted), -1)) - target_logits

    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Sums over the positions, and the numbers of tokens, so that the mean is the loss of a token in nats."""
        losses = self._losses(outputs, batch)
        weights = sample_weight(batch, losses)
        if self._separator is None:
            return tf.reduce_sum(losses, -1) * weights, weights * self.output_shape[0]
        is_predicted = self._is_predicted(batch)
        return tf.reduce_sum(losses * is_predicted, -1) * weights, tf.reduce_sum(is_predicted, -1) * weights

    def _is_predicted(self, batch: Batch) -> tf.Tensor:
        """Where the next token is of the same document, float32 [B, T]."""
        assert self._separator is not None
        return tf.cast(tf.not_equal(batch[TOKENS][:, :-1], self._separator), tf.float32)

    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """`tokens`, [3]: cross-entropy, tokens predicted right, tokens."""
        losses, targets = self._losses(outputs, batch), batch[TOKENS][:, 1:]
        weights = sample_weight(batch, losses)
        is_hit = tf.cast(tf.equal(tf.argmax(outputs, -1, output_type=targets.dtype), targets), tf.float32)
        if self._separator is not None:
            is_predicted = self._is_predicted(batch)
            terms = (losses * is_predicted, is_hit * is_predicted, is_predicted)
            sums = [tf.reduce_sum(tf.reduce_sum(term, -1) * weights) for term in terms]
            return {"tokens": tf.stack(sums)}
        sums = [tf.reduce_sum(tf.reduce_sum(term, -1) * weights) for term in (losses, is_hit)]
        return {"tokens": tf.stack([*sums, tf.reduce_sum(weights) * self.output_shape[0]])}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`accuracy` of tokens, `perplexity`, and `bits_per_byte` where the vocabulary is the 256 bytes."""
        loss, hits, count = np.asarray(sums["tokens"], np.float64)
        nats = float(ratio(loss, count))
        with np.errstate(over="ignore"):
            metrics = {"accuracy": float(ratio(hits, count)), "perplexity": float(np.exp(nats))}
        if self._vocabulary == NUM_BYTES:
            metrics["bits_per_byte"] = nats / math.log(2)
        return metrics

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`logits` [B, T, V]: the last position predicts the token after the input."""
        return {"logits": tf.cast(outputs, tf.float32)}
