"""From a source and an order to batches: a tf.data pipeline that has no state but the step it starts at.

Shape legend: B global batch, b this worker's slice of it, K steps in a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer.data.augment import build_augmentation
from trainer.data.counter_random import sample_keys
from trainer.data.order import SampleOrder
from trainer.data.source import Source
from trainer.data.streaming import WEIGHT

# A call of the pipeline costs some 50 microseconds, much more than to gather a small batch from memory. So a call reads
# a block of batches, up to this many bytes (more would leave the processor's cache) and this many batches.
BLOCK_BYTES = 4 * 2**20
BLOCK_STEPS = 32
# Tells the random numbers of augmentation from those of the order, which has the same seed.
AUGMENTATION_SALT = 0x5EED_A116

# The functions mapped here are kept from AutoGraph: there is no Python control flow on tensors in them, and converting
# them takes seconds at the first start.


def train_batches(
    source: Source,
    order: SampleOrder,
    *,
    first_step: int,
    num_steps: int,
    augment: Sequence[str] = (),
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Gives the batches of `num_steps` steps from `first_step` on. Opening costs the same at any step.

    Args:
        source: What to read.
        order: Which samples make which batch.
        first_step: Steps done before, counted over all epochs.
        num_steps: Number of batches to give.
        augment: As in `data.augment`.
        seed: Of the augmentation.
        shard: (i, n): the i-th of n equal slices of each global batch.

    Returns:
        Elements are the features by name, each [b, ...], and "sample_weight", float32 [b], where some weights can be 0.
        b is static unless the order keeps smaller batches.

    Raises:
        ValueError: `shard` does not divide the batch, or `augment` does not go with the samples.
    """
    rows = _slice_of(order.batch_size, shard)
    change = build_augmentation(augment, source.schema)
    position = tf.range(order.batch_size, dtype=tf.int64)[rows]
    weighted = order.weighted or source.may_skip

    def finish(batch: dict, weight: tf.Tensor, step: tf.Tensor, position: tf.Tensor) -> dict:
        skipped = batch.pop(WEIGHT, None)
        if change is not None:
            batch = change(batch, sample_keys(seed ^ AUGMENTATION_SALT, step, position))
        if weighted:
            batch[WEIGHT] = weight if skipped is None else weight * skipped
        return batch

    @tf.autograph.experimental.do_not_convert
    def read_step(step: tf.Tensor) -> dict:
        index, weight = order.batch(step)
        index, weight = index[rows], weight[rows]
        here = position[: tf.shape(index)[0]]
        return finish(source.read(index), weight, tf.fill(tf.shape(here), step), here)

    def read_block(steps: int) -> Callable[[tf.Tensor], dict]:
        @tf.autograph.experimental.do_not_convert
        def read(first: tf.Tensor) -> dict:
            index, weight = (values[:, rows] for values in order.batches(first, steps))
            size = (steps, position.shape[0])
            step = first + tf.range(steps, dtype=tf.int64)
            grid = [tf.reshape(values, [-1]) for values in tf.meshgrid(step, position, indexing="ij")]
            batch = finish(source.read(tf.reshape(index, [-1])), tf.reshape(weight, [-1]), *grid)
            return {name: tf.reshape(values, (*size, *values.shape[1:])) for name, values in batch.items()}

        return read

    if source.in_memory and order.full_batches:
        steps = _steps_of_block(source, order.batch_size, num_steps)
        blocks = tf.data.Dataset.range(first_step, first_step + num_steps, steps)
        blocks = blocks.map(read_block(steps), num_parallel_calls=tf.data.AUTOTUNE if change else None)
        # Prefetching blocks instead of batches hands over between threads once a block.
        batches = blocks.prefetch(2).unbatch().take(num_steps)
        batches = batches.apply(tf.data.experimental.assert_cardinality(num_steps))
    else:
        batches = tf.data.Dataset.range(first_step, first_step + num_steps)
        batches = batches.map(read_step, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return batches.with_options(_options())


def evaluation_batches(source: Source, batch_size: int) -> tf.data.Dataset:
    """Gives every sample once, in the order of the source; the last batch is filled up with samples of weight 0.

    Returns:
        Elements are the features by name, each [B, ...], and always "sample_weight", float32 [B].
    """
    order = SampleOrder(source.schema.num_samples, batch_size, shuffle=False, remainder="pad")

    @tf.autograph.experimental.do_not_convert
    def read(step: tf.Tensor) -> dict:
        index, weight = order.batch(step)
        batch = source.read(index)
        skipped = batch.pop(WEIGHT, None)
        batch[WEIGHT] = weight if skipped is None else weight * skipped
        return batch

    batches = tf.data.Dataset.range(order.steps_per_epoch)
    batches = batches.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return batches.with_options(_options())


def _slice_of(batch_size: int, shard: tuple[int, int]) -> slice:
    part, parts = shard
    if batch_size % parts or not 0 <= part < parts:
        raise ValueError(
            f"data.batch_size={batch_size} must be a multiple of the {parts} parts that read it: "
            f"set data.batch_size to {-(-batch_size // parts) * parts}"
        )
    size = batch_size // parts
    return slice(part * size, (part + 1) * size)


def _steps_of_block(source: Source, batch_size: int, num_steps: int) -> int:
    sample = sum(tf.as_dtype(f.dtype).size * math.prod(f.shape) for f in source.schema.features.values())
    return max(1, min(BLOCK_STEPS, num_steps, BLOCK_BYTES // (sample * batch_size)))


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
