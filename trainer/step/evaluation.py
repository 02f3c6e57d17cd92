"""One evaluation step: the sums of losses and metrics over a batch, exact by sample weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.step.gradients import Batch
from trainer.step.window import MetricLayout
from trainer.tasks.task import Task


class EvaluationSums(NamedTuple):
    """What an evaluation computes in the graph.

    Attributes:
        sums: [S]: loss, weight and the metrics' sums; float32 of a batch, float64 of all batches.
        collected: What the task keeps of every sample, [B, ...] each.
    """

    sums: tf.Tensor
    collected: dict[str, tf.Tensor]


@dataclass
class EvaluationStep:
    """Sums over a batch; batches of any size and number give the same totals.

    Attributes:
        ema: Evaluate the averaged weights where they exist.
    """

    model: keras.Model
    task: Task
    metrics: MetricLayout
    xla: bool
    ema: bool

    def __call__(self, trainable: list[tf.Tensor], non_trainable: list[tf.Tensor], batch: Batch) -> EvaluationSums:
        """Sums and collected outputs of one batch."""
        outputs, _ = self.model.stateless_call(trainable, non_trainable, self.task.inputs(batch), training=False)
        losses, weights = self.task.loss(outputs, batch)
        sums = self.metrics.pack(tf.reduce_sum(losses), tf.reduce_sum(weights), self.task.metric_sums(outputs, batch))
        return EvaluationSums(sums, self.task.collect(outputs, batch))
