"""A small convolutional network."""

from __future__ import annotations

import keras

from trainer.config.model import CnnModel
from trainer.data.source import Schema
from trainer.models.inputs import as_logits, image_input
from trainer.models.pooling import HalvingMaxPool
from trainer.tasks.task import Task


def cnn(config: CnnModel, schema: Schema, task: Task) -> keras.Model:
    """3x3 convolutions, each with a 2x2 max pooling, and one dense layer.

    Raises:
        ValueError: The data is no images, or they are too small to be halved so often.
    """
    inputs, x = image_input(task, config.name)
    side = min(x.shape[1:3])
    if side < 2 ** len(config.filters):
        raise ValueError(
            f"model.filters={list(config.filters)} halves the image {len(config.filters)} times, but its smaller side "
            f"is {side} pixels: leave out {len(config.filters) - side.bit_length() + 1} of the filters"
        )
    for i, filters in enumerate(config.filters):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"convolution_{i}")(x)
        x = HalvingMaxPool(name=f"pooling_{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(config.dense, activation="relu", name="hidden")(x)
    if config.dropout:
        x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    x = keras.layers.Dense(task.output_shape[-1], name="output")(x)
    return keras.Model(inputs, as_logits(x, task), name=config.name)
