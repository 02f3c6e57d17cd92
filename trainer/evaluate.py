"""Evaluation over the whole held-out split, exact whatever the batch size and the number of replicas."""

from __future__ import annotations

import math

import tensorflow as tf

from trainer.data.pipeline import evaluation_batches
from trainer.data.shard import WHOLE, Shard
from trainer.data.source import Source
from trainer.step.evaluation import EvaluationStep
from trainer.step.window import WEIGHT, mean_loss
from trainer.strategies.strategy import EvaluationLoop


class Evaluator:
    """Measures the model on the held-out split.

    Args:
        loop: Of the strategy, traced over many batches.
        step: Names the task and the layout of its sums.
        source: The held-out split.
        batch_size: Samples at a time; it changes no metric.
        split: What metrics.jsonl calls the split.
        shard: What this process reads of each batch.
    """

    def __init__(
        self,
        loop: EvaluationLoop,
        step: EvaluationStep,
        source: Source,
        batch_size: int,
        split: str,
        shard: Shard = WHOLE,
    ) -> None:
        self.split = split
        self.source = source
        self._loop = loop
        self._step = step
        self._dataset = evaluation_batches(source, batch_size, shard)
        self._num_batches = tf.constant(math.ceil(source.schema.num_samples / batch_size))

    def measure(self) -> dict[str, float]:
        """Loss and metrics of the current weights; no loss where no sample has a weight in it.

        Raises:
            DataError: A record cannot be read.
        """
        try:
            totals, collected = self._loop(iter(self._dataset), self._num_batches)
        except tf.errors.OpError:
            if self.source.failure is not None:
                raise self.source.failure from None
            raise
        packed = totals.numpy()
        metrics = self._step.task.metrics(self._step.metrics.unpack(packed))
        arrays = {name: values.numpy() for name, values in collected.items()}
        loss = {"loss": mean_loss(packed)} if packed[WEIGHT] else {}
        return {**loss, **metrics, **self._step.task.collected_metrics(arrays)}
