"""Training samples that are part one sample and part another: MixUp (Zhang et al. 2017), CutMix (Yun et al. 2019).

The partner of the sample at position p of the global batch is the one at p XOR 1, its neighbour. So who is mixed with
whom is a function of the position alone; a worker's part of a batch is an even number of samples from an even position
on, and holds the partner of each, so that nothing travels between workers; and the order of the samples is drawn anew
every epoch, which makes a neighbour as random a partner as any other. Each of the two draws a share of its own.

A mixed sample keeps its class and gets a second one, `MIXED_TARGET`, and the share of the first, `MIXED_SHARE`: one
number instead of a row as long as there are classes.

Shape legend: N samples, H height, W width, C channels. Images are float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.config.augmentation import MIXES, parse_augmentation
from trainer.data.augment import DRAWS_EACH, image_features
from trainer.data.counter_random import from_table, uniform
from trainer.data.source import Schema

MIXED_TARGET, MIXED_SHARE = "mixed_target", "mixed_share"

Batch = dict[str, tf.Tensor]
Mixing = Callable[[Batch, tf.Tensor, tf.Tensor], Batch]
"""(features, each [N, ...]; keys, uint32 [N]; weights, float32 [N]) -> features with a second target and a share."""


def build_mixing(augmentations: Sequence[str], schema: Schema, part_size: int) -> Mixing | None:
    """Makes the function that mixes neighbours.

    Args:
        augmentations: As in `data.augment`; those that do not mix are left to `trainer.data.augment`.
        schema: One feature is an image, and the target a class.
        part_size: Samples in each part that a global batch is cut into; the parts begin at multiples of it.

    Returns:
        None where nothing is mixed.

    Raises:
        ValueError: The samples are no images with a class, or a part cannot be cut into pairs.
    """
    parsed = [(place, *parse_augmentation(text)) for place, text in enumerate(augmentations)]
    mixes = [(place * DRAWS_EACH, name, alpha or 0.0) for place, name, alpha in parsed if name in MIXES]
    if not mixes:
        return None
    images, target = image_features(schema), schema.features.get(schema.target or "")
    if len(images) != 1 or target is None or target.shape or schema.num_classes is None:
        raise ValueError(
            f"data.augment={list(augmentations)} mixes pairs of images and of their classes, and the samples hold "
            f"{', '.join(schema.features)}: leave out {' and '.join(name for _, name, _ in mixes)}"
        )
    if part_size % 2:
        raise ValueError(
            f"data.augment={list(augmentations)} mixes neighbours within each part of a batch, and a part has "
            f"{part_size} samples: choose data.batch_size so that each part has an even number"
        )
    image, target_name = images[0], schema.target or ""

    def mix(batch: Batch, keys: tf.Tensor, weights: tf.Tensor) -> Batch:
        count = tf.shape(keys)[0]
        # Only the last batch of data.remainder=keep can end with a sample whose partner is missing.
        partner = tf.minimum(tf.bitwise.bitwise_xor(tf.range(count), 1), count - 1)
        drawn = [SHARES[name](keys, draw, alpha, batch[image]) for draw, name, alpha in mixes]
        share, own = drawn[0]
        if len(drawn) > 1:
            second = uniform(keys, mixes[0][0] + DRAWS_EACH - 1) < 0.5
            share = tf.where(second, drawn[1][0], share)
            own = tf.where(second[:, None, None, None], drawn[1][1], own)
        # Padding, and a record that was left out, is nobody's partner.
        alone = tf.gather(weights, partner) <= 0
        share = tf.where(alone, 1.0, share)
        own = tf.where(alone[:, None, None, None], 1.0, own)
        return {
            **batch,
            image: own * batch[image] + (1.0 - own) * tf.gather(batch[image], partner),
            MIXED_TARGET: tf.gather(batch[target_name], partner),
            MIXED_SHARE: share,
        }

    return mix


def _mixup(keys: tf.Tensor, draw: int, alpha: float, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    share = from_table(keys, draw, lambda u: beta_quantile(u, alpha))
    return share, share[:, None, None, None] * tf.ones([1, *images.shape[1:3], 1])


def _cutmix(keys: tf.Tensor, draw: int, alpha: float, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Cut from the neighbour, and centred anywhere: at the edge less of it is left, which counts.
    side = from_table(keys, draw, lambda u: np.sqrt(1.0 - beta_quantile(u, alpha)))

    def inside(size: int, draw: int) -> tf.Tensor:
        half = tf.floor(side * size / 2.0)[:, None]
        middle = tf.floor(uniform(keys, draw) * size)[:, None]
        place = tf.range(size, dtype=tf.float32)[None, :]
        return (place >= middle - half) & (place < middle + half)

    height, width = (int(size or 0) for size in images.shape[1:3])
    rows, columns = inside(height, draw + 1), inside(width, draw + 2)
    area = tf.reduce_sum(tf.cast(rows, tf.int32), 1) * tf.reduce_sum(tf.cast(columns, tf.int32), 1)
    cut = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.cast(height * width - area, tf.float32) / float(height * width), 1.0 - tf.cast(cut, tf.float32)


SHARES = {"mixup": _mixup, "cutmix": _cutmix}
"""By name, (keys, first draw, alpha, images) -> (a sample's own share [N], that of each of its pixels [N, H, W, 1])."""


def beta_quantile(probability: np.ndarray, alpha: float) -> np.ndarray:
    """The inverse of the distribution function of Beta(alpha, alpha), exact to about 1e-5.

    With t = x**alpha the density has no pole at 0 below one half, where the trapezoidal rule then converges; the other
    half mirrors it.

    >>> beta_quantile(np.array([0.1, 0.5, 0.75]), 1.0).round(4).tolist()
    [0.1, 0.5, 0.75]
    """
    t = np.linspace(0.0, 0.5**alpha, 100_001)
    x = t ** (1.0 / alpha)
    density = (1.0 - x) ** (alpha - 1.0)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
    mass *= 0.5 / mass[-1]
    lower = np.interp(np.minimum(probability, 1.0 - probability), mass, x)
    return np.where(probability <= 0.5, lower, 1.0 - lower)
