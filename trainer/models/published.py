"""Convolutional networks of `keras.applications`, without their weights: those are not downloaded.

Layers keep the names that Keras gives them, and images are scaled as each network was published with. So a `.keras`
file of a network with published weights, saved where there is a connection, is what `warm_start.path` takes.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers
from keras.src.applications.convnext import ConvNeXt  # the public functions have no depths, widths and drop_path

from trainer.config.vision_models import ConvNextModel, EfficientNetV2Model, MobileNetV3Model
from trainer.data.source import Schema
from trainer.models.inputs import as_logits
from trainer.models.photographs import IMAGENET_MEAN, IMAGENET_STD, normalised, photographs
from trainer.tasks.task import Task

SMALLEST_SIDE = 32

EFFICIENT_NETWORKS: dict[str, Any] = {
    "b0": keras.applications.EfficientNetV2B0,
    "b1": keras.applications.EfficientNetV2B1,
    "b2": keras.applications.EfficientNetV2B2,
    "b3": keras.applications.EfficientNetV2B3,
    "s": keras.applications.EfficientNetV2S,
    "m": keras.applications.EfficientNetV2M,
    "l": keras.applications.EfficientNetV2L,
}
# The network, and the width of the dense layer before its last one.
MOBILE_NETWORKS: dict[str, tuple[Any, int]] = {
    "small": (keras.applications.MobileNetV3Small, 1024),
    "large": (keras.applications.MobileNetV3Large, 1280),
}
# Blocks and widths of the four stages. From tiny on by Liu et al. 2022; below by Woo et al., "ConvNeXt V2", 2023.
CONVNEXT_STAGES = {
    "atto": ([2, 2, 6, 2], [40, 80, 160, 320]),
    "femto": ([2, 2, 6, 2], [48, 96, 192, 384]),
    "pico": ([2, 2, 6, 2], [64, 128, 256, 512]),
    "nano": ([2, 2, 8, 2], [80, 160, 320, 640]),
    "tiny": ([3, 3, 9, 3], [96, 192, 384, 768]),
    "small": ([3, 3, 27, 3], [96, 192, 384, 768]),
    "base": ([3, 3, 27, 3], [128, 256, 512, 1024]),
    "large": ([3, 3, 27, 3], [192, 384, 768, 1536]),
    "xlarge": ([3, 3, 27, 3], [256, 512, 1024, 2048]),
}
# From [0, 1] to [-1, 1].
SYMMETRIC = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def efficientnet_v2(config: EfficientNetV2Model, schema: Schema, task: Task) -> keras.Model:
    """EfficientNetV2 (Tan and Le, "EfficientNetV2: smaller models and faster training", 2021) on images in [0, 1].

    Raises:
        ValueError: The data is no images, or they are smaller than 32 pixels.
    """
    inputs, x = photographs(task, config.name, config.input_size, halvings=5, smallest_side=SMALLEST_SIDE)
    scale = (IMAGENET_MEAN, IMAGENET_STD) if config.variant.startswith("b") else SYMMETRIC
    network = EFFICIENT_NETWORKS[config.variant]
    x = network(
        include_top=False,
        weights=None,
        input_tensor=normalised(x, *scale),
        pooling="avg",
        include_preprocessing=False,
    ).output
    model = _classified(inputs, _dropped(x, config.dropout), task, f"efficientnet_v2_{config.variant}")
    return _with_momentum(model, config.momentum)


def mobilenet_v3(config: MobileNetV3Model, schema: Schema, task: Task) -> keras.Model:
    """MobileNetV3 (Howard et al., "Searching for MobileNetV3", 2019) on images in [0, 1].

    Raises:
        ValueError: The data is no images, or they are smaller than 32 pixels.
    """
    inputs, x = photographs(task, config.name, config.input_size, halvings=5, smallest_side=SMALLEST_SIDE)
    network, hidden = MOBILE_NETWORKS[config.variant]
    x = network(
        include_top=False,
        weights=None,
        input_tensor=normalised(x, *SYMMETRIC),
        alpha=config.width,
        pooling="avg",
        include_preprocessing=False,
    ).output
    x = layers.Dense(hidden, activation="hard_silu", name="hidden")(x)
    model = _classified(inputs, _dropped(x, config.dropout), task, f"mobilenet_v3_{config.variant}")
    return _with_momentum(model, config.momentum)


def convnext(config: ConvNextModel, schema: Schema, task: Task) -> keras.Model:
    """ConvNeXt (Liu et al., "A ConvNet for the 2020s", 2022) on images in [0, 1].

    Raises:
        ValueError: The data is no images, or they are smaller than 32 pixels.
    """
    inputs, x = photographs(task, config.name, config.input_size, halvings=5, smallest_side=SMALLEST_SIDE)
    depths, widths = CONVNEXT_STAGES[config.variant]
    network = ConvNeXt(
        depths,
        widths,
        drop_path_rate=config.drop_path,
        name=f"convnext_{config.variant}",
        include_preprocessing=False,
        include_top=False,
        input_tensor=normalised(x),
        pooling="avg",
    )
    for layer in network.layers:
        if type(layer).__name__ == "StochasticDepth":  # it draws in float32, which it cannot multiply with 16 bits
            layer.dtype_policy = keras.DTypePolicy("float32")
    return _classified(inputs, network.output, task, f"convnext_{config.variant}")


def _classified(inputs: Any, features: Any, task: Task, name: str) -> keras.Model:
    x = layers.Dense(task.output_shape[-1], name="output")(features)
    return keras.Model(inputs, as_logits(x, task), name=name)


def _dropped(x: Any, rate: float) -> Any:
    return layers.Dropout(rate, name="dropout")(x) if rate else x


def _with_momentum(model: keras.Model, momentum: float | None) -> keras.Model:
    if momentum is not None:
        for layer in model._flatten_layers():
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = momentum
    return model
