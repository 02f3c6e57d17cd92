"""The inputs of a model, and their first layers: one tensor of numbers from whatever the features are."""

from __future__ import annotations

from typing import Any

import keras

from trainer.data.source import Feature
from trainer.tasks.task import Task


def is_category(feature: Feature) -> bool:
    """Whether the numbers of a feature are names of things, which have no order and no size."""
    return feature.vocabulary is not None or (
        feature.num_values is not None and feature.dtype.startswith(("int", "uint"))
    )


def num_categories(feature: Feature) -> int:
    """How many different numbers a category has; one more than its vocabulary, whose 0 stands for all other names."""
    return len(feature.vocabulary) + 1 if feature.vocabulary is not None else feature.num_values or 0


def single_input(task: Task, model_name: str) -> tuple[str, Feature]:
    """The one feature of numbers that a model takes.

    Raises:
        ValueError: There are several features, or they are categories.
    """
    features = task.input_features
    name, feature = next(iter(features.items()))
    if len(features) > 1 or is_category(feature):
        kind = f"{len(features)} features" if len(features) > 1 else f"the categories of {name!r}"
        raise ValueError(
            f"model.name={model_name} takes one feature of numbers, but the data has {kind}: set model.name=tabular"
        )
    return name, feature


def model_input(name: str, feature: Feature) -> Any:
    """A symbolic batch of the feature, with its name."""
    return keras.Input(feature.shape, dtype=feature.dtype, name=name)


def image_input(task: Task, model_name: str) -> tuple[Any, Any]:
    """The model's input, and the images in it as [B, H, W, channels]; images without channels get one.

    Raises:
        ValueError: The input is no image.
    """
    name, feature = single_input(task, model_name)
    if len(feature.shape) not in (2, 3):
        raise ValueError(
            f"model.name={model_name} takes images of shape [height, width, channels], but the data's {name!r} has "
            f"shape {list(feature.shape)}: set model.name=mlp, or choose data of images"
        )
    inputs = model_input(name, feature)
    if len(feature.shape) == 3:
        return inputs, inputs
    return inputs, keras.layers.Reshape((*feature.shape, 1), name="channel")(inputs)


def as_logits(x: Any, task: Task | None = None) -> Any:
    """The end of every model: float32 whatever the precision of the layers, since a loss in 16 bits is none.

    Args:
        x: What the last layer answers.
        task: Says in which unit the model is to answer; None: in the one that it likes.
    """
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    if task is None or task.output_units is None:
        return logits
    # What the layers give is of the size of 1, whatever the unit of the target is.
    mean, std = task.output_units
    return keras.layers.Rescaling(std, mean, dtype="float32", name="units")(logits)
