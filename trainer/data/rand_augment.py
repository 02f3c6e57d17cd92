"""Random changes of one strength for all (Cubuk et al., "RandAugment", 2019), keyed like every augmentation.

Each sample draws two of fourteen changes. The samples that drew the same one are changed together, so that a batch
costs two changes a sample and not twenty-eight. The result for a sample must not depend on who is changed beside it:
sums are over whole numbers, which have no rounding to depend on their order.

Shape legend: N samples, H height, W width, C channels, K samples that drew one change. Images are float32 in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.data.counter_random import uniform

CHANGES_EACH = 2
# Of the strongest change.
LARGEST_ANGLE = math.radians(30)
LARGEST_SHEAR = 0.3
LARGEST_MOVE = 0.45  # of a side
LARGEST_BLEND = 0.9
LARGEST_BITS = 4
STRONGEST = 10.0
LUMA = (0.299, 0.587, 0.114)

Change = Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]
"""(images [K, H, W, C], signs [K] of -1 and 1, strength in [0, 1]) -> images."""


def rand_augment(images: tf.Tensor, keys: tf.Tensor, draw: int, amount: float) -> tf.Tensor:
    """Makes two changes to each image.

    Args:
        images: [N, H, W, C].
        keys: uint32 [N].
        draw: The first of four draws.
        amount: Strength of the changes, in [0, 10].
    """
    strength = amount / STRONGEST
    for i in range(CHANGES_EACH):
        chosen = tf.cast(uniform(keys, draw + 2 * i) * len(CHANGES), tf.int32)
        signs = tf.where(uniform(keys, draw + 2 * i + 1) < 0.5, -1.0, 1.0)
        places = tf.dynamic_partition(tf.range(tf.shape(keys)[0]), chosen, len(CHANGES))
        changed = [
            tf.clip_by_value(change(tf.gather(images, place), tf.gather(signs, place), strength), 0.0, 1.0)
            for change, place in zip(CHANGES, places, strict=True)
        ]
        images = tf.ensure_shape(tf.dynamic_stitch(places, changed), images.shape)
    return images


def _identity(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    return images


def _rotate(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    cos, sin = math.cos(strength * LARGEST_ANGLE), math.sin(strength * LARGEST_ANGLE) * signs
    return _transformed(images, cos, -sin, sin, cos)


def _shear_x(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    return _transformed(images, 1.0, strength * LARGEST_SHEAR * signs, 0.0, 1.0)


def _shear_y(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    return _transformed(images, 1.0, 0.0, strength * LARGEST_SHEAR * signs, 1.0)


def _move_x(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    pixels = round(strength * LARGEST_MOVE * _sides(images)[1])
    return _transformed(images, 1.0, 0.0, 0.0, 1.0, right=pixels * signs)


def _move_y(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    pixels = round(strength * LARGEST_MOVE * _sides(images)[0])
    return _transformed(images, 1.0, 0.0, 0.0, 1.0, down=pixels * signs)


def _transformed(
    images: tf.Tensor,
    xx: float,
    xy: tf.Tensor | float,
    yx: tf.Tensor | float,
    yy: float,
    right: tf.Tensor | float = 0.0,
    down: tf.Tensor | float = 0.0,
) -> tf.Tensor:
    """Turns about the middle: the pixel (x, y) of the result is the one at (xx x + xy y, yx x + yy y) of the image."""
    height, width = _sides(images)
    x, y = (width - 1) / 2, (height - 1) / 2
    numbers = [xx, xy, x - xx * x - xy * y - right, yx, yy, y - yx * x - yy * y - down, 0.0, 0.0]
    count = tf.shape(images)[:1]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([tf.broadcast_to(tf.cast(number, tf.float32), count) for number in numbers], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _brightness(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    return _blended(tf.zeros_like(images), images, signs, strength)


def _colour(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    return _blended(tf.broadcast_to(_grey(images), tf.shape(images)), images, signs, strength)


def _contrast(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    height, width = _sides(images)
    total = tf.reduce_sum(_levels(_grey(images)), axis=[1, 2, 3])
    mean = tf.cast(total, tf.float32) / (255.0 * height * width)
    return _blended(mean[:, None, None, None] * tf.ones_like(images), images, signs, strength)


def _sharpness(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    height, width = _sides(images)
    if min(height, width) < 3:
        return images
    smooth = 5.0 * images[:, 1:-1, 1:-1]
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                smooth += images[:, i : height - 2 + i, j : width - 2 + j]
    inner = np.zeros([1, height, width, 1], bool)
    inner[:, 1:-1, 1:-1] = True
    smooth = tf.pad(smooth / 13.0, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return _blended(tf.where(inner, smooth, images), images, signs, strength)


def _blended(plain: tf.Tensor, images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    """Between `plain` (towards a sign of -1) and more of what tells the images from it (towards 1)."""
    factor = 1.0 + strength * LARGEST_BLEND * signs
    return plain + factor[:, None, None, None] * (images - plain)


def _posterise(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    step = 2 ** round(strength * LARGEST_BITS)
    return tf.cast(_levels(images) // step * step, tf.float32) / 255.0


def _solarise(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    return tf.where(images > 1.0 - strength, 1.0 - images, images)


def _autocontrast(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    low, high = (reduce(images, axis=[1, 2], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.where(high > low, (images - low) / tf.where(high > low, high - low, 1.0), images)


def _equalise(images: tf.Tensor, signs: tf.Tensor, strength: float) -> tf.Tensor:
    """Spreads the levels of each channel evenly, as Pillow does."""
    height, width = _sides(images)
    levels = tf.transpose(_levels(images), [0, 3, 1, 2])
    shape = tf.shape(levels)
    rows = shape[0] * shape[1]
    levels = tf.reshape(levels, [-1, height * width])
    place = tf.reshape(levels + 256 * tf.range(rows)[:, None], [-1])
    counts = tf.reshape(tf.math.unsorted_segment_sum(tf.ones_like(place), place, 256 * rows), [-1, 256])
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1)
    step = (height * width - tf.gather(counts, last, batch_dims=1))[:, None] // 255
    table = (tf.cumsum(counts, axis=1, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    spread = tf.reshape(tf.gather(table, levels, batch_dims=1), shape)
    return tf.cast(tf.transpose(spread, [0, 2, 3, 1]), tf.float32) / 255.0


def _grey(images: tf.Tensor) -> tf.Tensor:
    if images.shape[-1] != len(LUMA):
        return images
    red, green, blue = (images[:, :, :, i : i + 1] * weight for i, weight in enumerate(LUMA))
    return red + green + blue


def _levels(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(images * 255.0), tf.int32)


def _sides(images: tf.Tensor) -> tuple[int, int]:
    _, height, width, _ = images.shape
    assert height and width, "a schema's images have fixed sides"
    return height, width


CHANGES: tuple[Change, ...] = (
    _identity,
    _rotate,
    _shear_x,
    _shear_y,
    _move_x,
    _move_y,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterise,
    _solarise,
    _autocontrast,
    _equalise,
)
