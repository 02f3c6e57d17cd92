"""The interface of a task, and the arithmetic that all tasks share.

Shape legend: B batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.data.source import Feature, Schema

SAMPLE_WEIGHT = "sample_weight"

Batch = Mapping[str, tf.Tensor]


class Task(ABC):
    """Says what the batches of a schema mean.

    The methods that take tensors are pure and compile under XLA. Metrics are sums over samples that are added up over
    batches and replicas before anything is divided, so they are exact however the samples were cut into batches.

    Attributes:
        input_features: What the model is called with, by name.
        output_shape: Shape of the model's output for one sample, before `trained` adds to it.
        output_units: Mean and standard deviation of the numbers that are to be predicted, where the data say them.
    """

    output_shape: tuple[int, ...]
    output_units: tuple[float, float] | None = None

    def __init__(self, schema: Schema):
        self.input_features: dict[str, Feature] = schema.inputs

    def inputs(self, batch: Batch) -> tf.Tensor | dict[str, tf.Tensor]:
        """What the model is called with: the one input feature itself, or several by name, each [B, ...]."""
        if len(self.input_features) == 1:
            return batch[next(iter(self.input_features))]
        return {name: batch[name] for name in self.input_features}

    def trained(self, model: keras.Model) -> keras.Model:
        """The model with what only training needs behind it, which is nothing in most tasks."""
        return model

    def served(self, model: keras.Model) -> keras.Model:
        """The part of what `trained` gave that a served model needs; its variables are variables of the model."""
        return model

    @abstractmethod
    def loss(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Losses and weights of the samples, float32 [B] each, both times the batch's `sample_weight`.

        The loss of any set of samples is the sum of its losses over the sum of its weights.
        """

    @abstractmethod
    def metric_sums(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """Sums over the batch from which the metrics follow, float32 vectors by name."""

    @abstractmethod
    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metrics of any set of samples from the total of its `metric_sums`, in float64."""

    def collect(self, outputs: tf.Tensor, batch: Batch) -> dict[str, tf.Tensor]:
        """What an evaluation must keep of every sample, [B, ...] each, for metrics that no sum can give."""
        return {}

    def collected_metrics(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics from what `collect` gave, joined over all batches; padding has weight 0."""
        return {}

    @abstractmethod
    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """What a served model answers, by name, [B, ...] each."""


def sample_weight(batch: Batch, like: tf.Tensor) -> tf.Tensor:
    """The weights of the samples, float32 [B]: ones where the batch has none. `like` is [B, ...]."""
    if SAMPLE_WEIGHT in batch:
        return tf.cast(batch[SAMPLE_WEIGHT], tf.float32)
    return tf.ones_like(tf.reshape(like, [tf.shape(like)[0], -1])[:, 0], tf.float32)


def ratio(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """The quotient in float64; NaN where there is nothing to divide by."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)


def f1_scores(counts: np.ndarray) -> np.ndarray:
    """F1 of each class: 2 TP / (predicted + actual); NaN for a class that was neither predicted nor there.

    Args:
        counts: [3, C], true positives, predictions and occurrences of each class.
    """
    hits, predicted, actual = np.asarray(counts, np.float64)
    return ratio(2 * hits, predicted + actual)


def describe_target(schema: Schema) -> str:
    """The target of a schema in words, for a message."""
    target = schema.features.get(schema.target or "")
    if target is None:
        return "missing"
    kind = f"{schema.target!r} of shape {list(target.shape)} and type {target.dtype}"
    return kind if schema.num_classes is None else f"{kind} with {schema.num_classes} classes"
