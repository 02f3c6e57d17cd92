"""Residual networks for images.

50, 101 and 152 layers are those of `keras.applications`; 18 and 34, which it lacks, are here in the same style. All
follow He et al., "Deep residual learning for image recognition", 2015, table 1.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.config.model import ResnetModel
from trainer.data.source import Schema
from trainer.models.inputs import as_logits
from trainer.models.photographs import normalised, photographs
from trainer.tasks.task import Task

SMALLEST_SIDE = 32

BOTTLENECK_NETWORKS: dict[int, Any] = {
    50: keras.applications.ResNet50,
    101: keras.applications.ResNet101,
    152: keras.applications.ResNet152,
}
BASIC_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def resnet(config: ResnetModel, schema: Schema, task: Task) -> keras.Model:
    """A residual network on images in [0, 1], trained from scratch.

    Raises:
        ValueError: The data is no images, or they are smaller than 32 pixels.
    """
    inputs, x = photographs(task, config.name, config.input_size, halvings=5, smallest_side=SMALLEST_SIDE)
    x = normalised(x)
    num_outputs = task.output_shape[-1]
    if config.depth in BASIC_BLOCKS:
        x = _basic_network(x, BASIC_BLOCKS[config.depth])
    else:
        network = BOTTLENECK_NETWORKS[config.depth]
        x = network(include_top=False, weights=None, input_tensor=x, pooling="avg").output
    x = layers.Dense(num_outputs, name="output")(x)
    return keras.Model(inputs, as_logits(x, task), name=f"resnet{config.depth}")


def _basic_network(x: Any, num_blocks: tuple[int, ...]) -> Any:
    x = _convolution(x, 64, size=7, stride=2, name="conv1")
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    for stage, blocks in enumerate(num_blocks):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, 64 * 2**stage, stride, name=f"conv{stage + 2}_block{block + 1}")
    return layers.GlobalAveragePooling2D(name="avg_pool")(x)


def _basic_block(x: Any, filters: int, stride: int, name: str) -> Any:
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _convolution(x, filters, size=1, stride=stride, name=f"{name}_0")
    x = layers.ReLU(name=f"{name}_1_relu")(_convolution(x, filters, size=3, stride=stride, name=f"{name}_1"))
    x = _convolution(x, filters, size=3, stride=1, name=f"{name}_2")
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, x]))


def _convolution(x: Any, filters: int, *, size: int, stride: int, name: str) -> Any:
    # The normalisation after it has an offset of its own.
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)
