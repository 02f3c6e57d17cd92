"""A U-Net (Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", 2015).

Two things are as later practice has them: convolutions keep the size of the image, so that every pixel gets a class,
and each is followed by a group normalisation, whose result for an image does not depend on the others in its batch.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from trainer.config.vision_models import UnetModel
from trainer.data.source import Schema
from trainer.models.inputs import as_logits, image_input
from trainer.models.photographs import normalised
from trainer.tasks.task import Task

MOST_GROUPS = 8


def unet(config: UnetModel, schema: Schema, task: Task) -> keras.Model:
    """Images in [0, 1] to logits for each pixel, [B, H, W, classes].

    Raises:
        ValueError: The task wants no class for each pixel, or the images cannot be halved so often.
    """
    inputs, x = image_input(task, config.name)
    if len(task.output_shape) != 3:
        raise ValueError(
            f"model.name=unet gives a class to every pixel, but the task's output has shape "
            f"{list(task.output_shape)}: set task.name=segmentation, or choose another model.name"
        )
    height, width = x.shape[1:3]
    divisor = 2 ** (len(config.filters) - 1)
    if height % divisor or width % divisor:
        raise ValueError(
            f"model.filters={list(config.filters)} halves the image {len(config.filters) - 1} times, so that {divisor} "
            f"must divide both of its sides, {height} x {width}: leave out some of the filters"
        )
    x = normalised(x)
    skipped = []
    for i, filters in enumerate(config.filters[:-1]):
        x = _convolutions(x, filters, f"down_{i}")
        skipped.append(x)
        x = layers.MaxPooling2D(2, name=f"down_{i}_pool")(x)
    x = _convolutions(x, config.filters[-1], "bottom")
    if config.dropout:
        x = layers.Dropout(config.dropout, name="dropout")(x)
    for i in reversed(range(len(skipped))):
        x = layers.Conv2DTranspose(config.filters[i], 2, 2, name=f"up_{i}_grow")(x)
        x = layers.Concatenate(name=f"up_{i}_join")([skipped[i], x])
        x = _convolutions(x, config.filters[i], f"up_{i}")
    x = layers.Conv2D(task.output_shape[-1], 1, name="output")(x)
    return keras.Model(inputs, as_logits(x), name=config.name)


def _convolutions(x: Any, filters: int, name: str) -> Any:
    for i in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv_{i}")(x)
        x = layers.GroupNormalization(math.gcd(filters, MOST_GROUPS), name=f"{name}_norm_{i}")(x)
        x = layers.ReLU(name=f"{name}_relu_{i}")(x)
    return x
