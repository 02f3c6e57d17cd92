"""A temporal convolutional network (Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and
recurrent networks for sequence modeling", 2018).

Layer normalisation takes the place of the paper's weight normalisation.

Shape legend: B batch, T steps, C channels, Q kernel.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.config.sequence_models import TcnModel
from trainer.data.source import Schema
from trainer.models.forecasting import forecast, series_input
from trainer.models.static_shape import sample_shape
from trainer.tasks.task import Task


def tcn(config: TcnModel, schema: Schema, task: Task) -> keras.Model:
    """Series [B, T, C] to a forecast, or to classes; read from the last step, which sees those before it.

    Raises:
        ValueError: The data is no series.
    """
    inputs, x = series_input(task, config.name)
    for i in range(config.levels):
        x = _level(x, config, 2**i, f"level_{i}")
    return keras.Model(inputs, forecast(x[:, -1], inputs, schema, task), name=config.name)


def _level(x_BTC: Any, config: TcnModel, dilation: int, name: str) -> Any:
    y = x_BTC
    for part in ("first", "second"):
        y = Delayed(config.kernel, dilation, name=f"{name}_{part}_delayed")(y)
        y = layers.Dense(config.filters, name=f"{name}_{part}_convolution")(y)
        y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_{part}_norm")(y)
        y = layers.Activation("relu", name=f"{name}_{part}_activation")(y)
        if config.dropout:
            y = layers.Dropout(config.dropout, name=f"{name}_{part}_dropout")(y)
    if x_BTC.shape[-1] != config.filters:
        x_BTC = layers.Dense(config.filters, name=f"{name}_shortcut")(x_BTC)
    return layers.Add(name=f"{name}_add")([x_BTC, y])


@keras.saving.register_keras_serializable("phalanx")
class Delayed(layers.Layer):
    """Each step beside those before it, at equal distances; zeros stand before the first.

    With a dense layer behind it, this is a dilated causal convolution as one matrix product, which XLA compiles well on
    every processor.

    Args:
        kernel: Q, steps that stand side by side.
        dilation: Distance between them.
    """

    def __init__(self, kernel: int, dilation: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel = kernel
        self.dilation = dilation

    def call(self, x_BTC: tf.Tensor) -> tf.Tensor:
        """[B, T, Q C]: the step itself, the one `dilation` before it, and so on."""
        time, _ = sample_shape(x_BTC)
        delays = [min(i * self.dilation, time) for i in range(self.kernel)]
        shifted = [tf.pad(x_BTC[:, : time - delay], [[0, 0], [delay, 0], [0, 0]]) for delay in delays]
        return tf.concat(shifted, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        width = input_shape[-1]
        return (*input_shape[:-1], width and width * self.kernel)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "kernel": self.kernel, "dilation": self.dilation}
