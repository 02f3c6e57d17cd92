"""Both ends of a model of series: its scaled input, and the forecast in the series' own unit.

Shape legend: B batch, P past steps, C channels, F steps to predict, K channels to predict, D width.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.data.source import Schema
from trainer.models.inputs import as_logits, model_input, single_input
from trainer.tasks.task import Task


def series_input(task: Task, model_name: str) -> tuple[Any, Any]:
    """The model's input, and the series in it, [B, P, C], each channel centred and scaled where that is known.

    Raises:
        ValueError: The input is no series.
    """
    name, feature = single_input(task, model_name)
    if len(feature.shape) != 2:
        raise ValueError(
            f"model.name={model_name} takes series of shape [steps, channels], but the data's {name!r} has shape "
            f"{list(feature.shape)}: set data.name=series, or choose another model.name"
        )
    inputs = model_input(name, feature)
    if feature.channels is None:
        return inputs, inputs
    means, variances = [mean for mean, _ in feature.channels], [std**2 for _, std in feature.channels]
    # In float32: what changes from hour to hour is small beside what is there.
    return inputs, layers.Normalization(mean=means, variance=variances, dtype="float32", name="normalise")(inputs)


def forecast(x_BD: Any, inputs: Any, schema: Schema, task: Task) -> Any:
    """The end of a model of series, [B, *task.output_shape].

    A forecast is what is added to the last known values, which are the naive forecast: a model that has learned
    nothing starts there, and levels that it never saw are no difficulty.
    """
    y = layers.Dense(task.output_shape[-1], name="output")(x_BD)
    target = schema.features[schema.target or ""]
    if not target.continues:
        return as_logits(y, task)
    horizon, num_targets = target.shape
    feature = next(iter(task.input_features.values()))
    channels = feature.channels or ((0.0, 1.0),) * num_targets
    deviations = [std for _, std in channels[:num_targets]]
    return as_logits(Continuation(horizon, deviations, dtype="float32", name="continuation")([y, inputs]))


@keras.saving.register_keras_serializable("phalanx")
class Continuation(layers.Layer):
    """Adds changes, in units of each channel's standard deviation, to the last known values.

    Args:
        horizon: F.
        deviations: Of the first K channels of the input.
    """

    def __init__(self, horizon: int, deviations: list[float], **kwargs: Any):
        super().__init__(**kwargs)
        self.horizon = horizon
        self.deviations = list(deviations)

    def call(self, both: list[tf.Tensor]) -> tf.Tensor:
        """[B, F K] from changes, [B, F K], and the past, [B, P, C]."""
        changes, past_BPC = both
        num_targets = len(self.deviations)
        changes_BFK = tf.reshape(changes, [-1, self.horizon, num_targets]) * tf.constant(self.deviations, changes.dtype)
        return tf.reshape(past_BPC[:, -1:, :num_targets] + changes_BFK, [-1, self.horizon * num_targets])

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "horizon": self.horizon, "deviations": self.deviations}
