"""What models of photographs begin with: images of the right size, centred and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from trainer.models.inputs import image_input
from trainer.tasks.task import Task

# Of ImageNet's training images in [0, 1], by channel; the values that published networks are trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def photographs(
    task: Task, model_name: str, input_size: int | None, halvings: int = 0, smallest_side: int = 1
) -> tuple[Any, Any]:
    """The model's input, and its images [B, H, W, channels], resized where the config says so.

    Args:
        task: Names the input.
        model_name: For the message.
        input_size: Pixels a side; None leaves the images as they are.
        halvings: How often the model halves the image.
        smallest_side: Pixels that it needs for that.

    Raises:
        ValueError: The input is no image, or too small.
    """
    inputs, x = image_input(task, model_name)
    if input_size is not None and tuple(x.shape[1:3]) != (input_size, input_size):
        x = layers.Resizing(input_size, input_size, name="resize")(x)
    if min(x.shape[1:3]) < smallest_side:
        times = {5: "five", 4: "four", 3: "three", 2: "two"}.get(halvings, str(halvings))
        raise ValueError(
            f"model.name={model_name} halves the image {times} times and needs at least {smallest_side} pixels a side, "
            f"but it has {x.shape[1]} x {x.shape[2]}: set model.input_size={smallest_side}, or model.name=cnn"
        )
    return inputs, x


def normalised(x: Any, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Any:
    """Images in [0, 1], centred and scaled by channel; those that are not in colour by mid-grey."""
    if x.shape[-1] != len(mean):
        mean, std = [0.5] * x.shape[-1], [0.25] * x.shape[-1]
    # In float32, so that neighbouring shades stay apart in 16 bits.
    variance = [value**2 for value in std]
    return layers.Normalization(mean=mean, variance=variance, dtype="float32", name="normalise")(x)
