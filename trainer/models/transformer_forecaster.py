"""An encoder over the past steps of a series.

All that it reads lies in the past of what it predicts, so that no step is hidden from another.

Shape legend: B batch, T steps, C channels.
"""

from __future__ import annotations

import keras
from keras import layers

from trainer.config.sequence_models import TransformerForecasterModel
from trainer.data.source import Schema
from trainer.models.encoder import encoded
from trainer.models.forecasting import forecast, series_input
from trainer.tasks.task import Task


def transformer_forecaster(config: TransformerForecasterModel, schema: Schema, task: Task) -> keras.Model:
    """Series [B, T, C] to a forecast, or to classes; read from the last step.

    Raises:
        ValueError: The data is no series.
    """
    inputs, x = series_input(task, config.name)
    x = encoded(layers.Dense(config.width, name="step_embedding")(x), config)
    return keras.Model(inputs, forecast(x[:, -1], inputs, schema, task), name=config.name)
