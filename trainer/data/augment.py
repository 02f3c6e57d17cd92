"""Random changes to images, keyed by (seed, step, position in the global batch) and done on whole batches in the graph.

So a resumed run makes the same changes as one that never stopped, and so does any number of workers: to the bit, for
only operations are used whose result for one sample does not depend on how many others are in the tensor: no
reductions, logarithms or the like.

Shape legend: N samples, H height, W width, C channels. Images are float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.config.augmentation import MIXES, parse_augmentation
from trainer.data.counter_random import from_table, normal, uniform
from trainer.data.rand_augment import rand_augment
from trainer.data.source import Feature, Schema

ImageChange = Callable[[tf.Tensor, tf.Tensor, int, float], tf.Tensor]
Batch = dict[str, tf.Tensor]

# Room for the draws of one augmentation before those of the next one in the list.
DRAWS_EACH = 8
# What goes with a target that has a class for each pixel: the first are done to it too, the second move nothing.
OF_IMAGE_AND_MASK = ("flip", "flip_vertical", "shift")
OF_COLOUR = ("brightness", "contrast", "noise")


def build_augmentation(augmentations: Sequence[str], schema: Schema) -> Callable[[Batch, tf.Tensor], Batch] | None:
    """Makes the function that applies the augmentations in their order.

    Args:
        augmentations: As in `data.augment`: "flip", "shift=2". Those that mix samples are not made here.
        schema: Says which features are images: float32 [H, W, C].

    Returns:
        A function of (features, each [N, ...]; keys, uint32 [N], from `sample_keys`), or None for no augmentation.

    Raises:
        ValueError: An augmentation does not exist, or the samples have no image.
    """
    parsed = [(name, amount) for name, amount in map(parse_augmentation, augmentations) if name not in MIXES]
    if not parsed:
        return None
    images = image_features(schema)
    masks = [name for name in [schema.target or ""] if name in schema.features and _is_mask(schema.features[name])]
    if masks and (moving := [name for name, _ in parsed if name not in (*OF_IMAGE_AND_MASK, *OF_COLOUR)]):
        raise ValueError(
            f"data.augment={list(augmentations)} would move the pixels of an image and leave its mask, which "
            f"{moving[0]} cannot change: use {', '.join((*OF_IMAGE_AND_MASK, *OF_COLOUR))}"
        )
    if not images:
        raise ValueError(
            f"data.augment={list(augmentations)} needs images of height, width and channels, and the samples hold "
            f"{', '.join(schema.inputs)}: leave data.augment empty"
        )

    def augment(batch: Batch, keys: tf.Tensor) -> Batch:
        changed = dict(batch)
        for place, (name, amount) in enumerate(parsed):
            for image in images:
                changed[image] = CHANGES[name](changed[image], keys, place * DRAWS_EACH, amount or 0.0)
            for mask in masks if name in OF_IMAGE_AND_MASK else ():
                moved = CHANGES[name](tf.expand_dims(changed[mask], -1), keys, place * DRAWS_EACH, amount or 0.0)
                changed[mask] = tf.squeeze(moved, -1)
        return changed

    return augment


def image_features(schema: Schema) -> list[str]:
    """The features that are images: float32 of height, width and channels."""
    return [name for name, feature in schema.inputs.items() if len(feature.shape) == 3 and feature.dtype == "float32"]


def _is_mask(feature: Feature) -> bool:
    return len(feature.shape) == 2 and feature.dtype.startswith("int")


def _flip(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    return tf.where(_spread(uniform(keys, draw) < 0.5), tf.reverse(images, [2]), images)


def _flip_vertical(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    return tf.where(_spread(uniform(keys, draw) < 0.5), tf.reverse(images, [1]), images)


def _shift(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    down, right = (tf.floor(uniform(keys, draw + i) * (2 * amount + 1)) - amount for i in range(2))
    one, zero = tf.ones_like(down), tf.zeros_like(down)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([one, zero, -right, zero, one, -down, zero, zero], axis=1),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(moved, images.shape)


def _crop(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    top, left = (uniform(keys, draw + i) * (1.0 - amount) for i in range(2))
    boxes = tf.stack([top, left, top + amount, left + amount], axis=1)
    return tf.ensure_shape(
        tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), tf.shape(images)[1:3]), images.shape
    )


def _resized_crop(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    # Roots and powers are looked up: TensorFlow's own may differ in the last bit by where an element lies.
    share = from_table(keys, draw, lambda u: np.sqrt(amount + (1 - amount) * u))
    stretch = from_table(keys, draw + 1, lambda u: (3 / 4) ** (0.5 - u))
    height, width = tf.minimum(share / stretch, 1.0), tf.minimum(share * stretch, 1.0)
    top, left = uniform(keys, draw + 2) * (1.0 - height), uniform(keys, draw + 3) * (1.0 - width)
    boxes = tf.stack([top, left, top + height, left + width], axis=1)
    return tf.ensure_shape(
        tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), tf.shape(images)[1:3]), images.shape
    )


def _brightness(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    return tf.clip_by_value(images + _spread(_between(keys, draw, -amount, amount)), 0.0, 1.0)


def _contrast(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    factor = _spread(_between(keys, draw, 1.0 - amount, 1.0 + amount))
    return tf.clip_by_value(0.5 + (images - 0.5) * factor, 0.0, 1.0)


def _noise(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    return tf.clip_by_value(images + amount * normal(keys, draw, _sample_shape(images)), 0.0, 1.0)


def _erase(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    def inside(size: int, draw: int) -> tf.Tensor:
        length = max(1, round(size * amount))
        first = tf.floor(uniform(keys, draw) * (size - length + 1))[:, None]
        place = tf.range(size, dtype=tf.float32)[None, :]
        return (place >= first) & (place < first + length)

    height, width, _ = _sample_shape(images)
    erased = inside(height, draw)[:, :, None, None] & inside(width, draw + 1)[:, None, :, None]
    return tf.where(erased, 0.0, images)


def _between(keys: tf.Tensor, draw: int, low: float, high: float) -> tf.Tensor:
    return low + (high - low) * uniform(keys, draw)


def _sample_shape(images: tf.Tensor) -> tuple[int, ...]:
    return tuple(size for size in images.shape[1:] if size is not None)


def _spread(values: tf.Tensor) -> tf.Tensor:
    """Gives values [N] the shape [N, 1, 1, 1], to meet images."""
    return values[:, None, None, None]


CHANGES: dict[str, ImageChange] = {
    "flip": _flip,
    "flip_vertical": _flip_vertical,
    "shift": _shift,
    "crop": _crop,
    "resized_crop": _resized_crop,
    "rand_augment": rand_augment,
    "brightness": _brightness,
    "contrast": _contrast,
    "noise": _noise,
    "erase": _erase,
}
