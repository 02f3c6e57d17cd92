"""From a source and an order to batches: a tf.data pipeline that has no state but the step it starts at.

Shape legend: B global batch, b this worker's slice of it, K steps in a block.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from trainer.data.augment import build_augmentation
from trainer.data.counter_random import sample_keys
from trainer.data.mixing import build_mixing
from trainer.data.order import SampleOrder
from trainer.data.shard import WHOLE, Shard
from trainer.data.source import SAMPLE_WEIGHT, Announced, Redrawn, Schema, Source

# A call of the pipeline costs some 50 microseconds, much more than to gather a small batch from memory. So a call reads
# a block of batches, up to this many bytes and this many batches.
BLOCK_BYTES = 8 * 2**20
BLOCK_STEPS = 32
# Of a loop that is one XLA program: whoever takes single steps takes them from blocks of two, where they fit.
SHORTEST_BLOCK = 2
# Tells the random numbers of augmentation from those of the order, which has the same seed.
AUGMENTATION_SALT = 0x5EED_A116
REDRAWING_SALT = 0x5EED_D4A3

# The functions mapped here are kept from AutoGraph: there is no Python control flow on tensors in them, and converting
# them takes seconds at the first start.


class BatchPipeline:
    """The batches of one training, from any step on.

    What reads a step, or a block of steps, is traced once for each number of rows: members of a group that is formed
    anew read other rows from another step on, and wait for each other while they open it.

    Args:
        source: What to read.
        order: Which samples make which batch.
        augment: As in `data.augment`.
        seed: Of the augmentation.
    """

    def __init__(self, source: Source, order: SampleOrder, *, augment: Sequence[str] = (), seed: int = 0) -> None:
        self._source, self._order, self._augment, self._seed = source, order, augment, seed
        self._readers: dict[tuple[int, int], _Reader] = {}

    def batches(self, first_step: int, num_steps: int, shard: Shard = WHOLE) -> tf.data.Dataset:
        """See `train_batches`."""
        reader, begin = self._reader(shard)
        if not reader.reads_blocks:
            batches = reader.steps(first_step, num_steps, begin).prefetch(tf.data.AUTOTUNE)
            return batches.with_options(_options())
        block_steps = steps_of_block(self._source, self._order, min(BLOCK_STEPS, num_steps))
        blocks = reader.blocks(first_step, num_steps, block_steps, begin)
        batches = blocks.prefetch(2).unbatch().take(num_steps)
        return batches.apply(tf.data.experimental.assert_cardinality(num_steps)).with_options(_options())

    def blocks(
        self, first_step: int, num_steps: int, block_steps: int, shard: Shard = WHOLE
    ) -> Iterable[dict[str, tf.Tensor]]:
        """See `train_blocks`, for whoever opens them often and goes through them with a thread of its own."""
        reader, begin = self._reader(shard)
        if reader.reads_blocks and not reader.draws:
            # To make an iterator of tf.data takes as long as tracing, and there is nothing to be done in parallel.
            return reader.gathered(first_step, num_steps, block_steps, begin)
        return self.dataset(first_step, num_steps, block_steps, shard)

    def dataset(self, first_step: int, num_steps: int, block_steps: int, shard: Shard = WHOLE) -> tf.data.Dataset:
        """See `train_blocks`."""
        reader, begin = self._reader(shard)
        if reader.reads_blocks:
            return reader.blocks(first_step, num_steps, block_steps, begin).prefetch(2).with_options(_options())
        # Whole blocks, so that their length is static: the steps after the last one are read and not taken.
        batches = reader.steps(first_step, -(-num_steps // block_steps) * block_steps, begin)
        if block_steps == 1:
            blocks = batches.map(lambda batch: {name: value[None] for name, value in batch.items()})
        else:
            blocks = batches.batch(block_steps, drop_remainder=True)
        return blocks.prefetch(tf.data.AUTOTUNE).with_options(_options())

    def _reader(self, shard: Shard) -> tuple[_Reader, int]:
        """What reads as many rows as a shard has, and the shard's first row."""
        rows = shard.rows(self._order.batch_size)
        key = rows.stop - rows.start, shard.num_parts
        if key not in self._readers:
            self._readers[key] = _Reader(self._source, self._order, self._augment, self._seed, *key)
        return self._readers[key], rows.start


def train_batches(
    source: Source,
    order: SampleOrder,
    *,
    first_step: int,
    num_steps: int,
    augment: Sequence[str] = (),
    seed: int = 0,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """Gives the batches of `num_steps` steps from `first_step` on, one an element; else like `train_blocks`.

    Returns:
        Elements are the features by name, each [b, ...].
    """
    return BatchPipeline(source, order, augment=augment, seed=seed).batches(first_step, num_steps, shard)


def train_blocks(
    source: Source,
    order: SampleOrder,
    *,
    first_step: int,
    num_steps: int,
    block_steps: int,
    augment: Sequence[str] = (),
    seed: int = 0,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """Gives the batches of `num_steps` steps from `first_step` on, stacked. Opening costs the same at any step.

    Args:
        source: What to read.
        order: Which samples make which batch.
        first_step: Steps done before, counted over all epochs.
        num_steps: Number of batches to give; the last block may hold more.
        block_steps: K, at most `steps_of_block`.
        augment: As in `data.augment`.
        seed: Of the augmentation.
        shard: What of each global batch to read.

    Returns:
        Elements are the features by name, each [K, b, ...], and "sample_weight", float32 [K, b], where some weights
        can be 0. b is static unless the order keeps smaller batches.

    Raises:
        ValueError: `shard` does not divide the batch, or `augment` does not go with the samples.
    """
    return BatchPipeline(source, order, augment=augment, seed=seed).dataset(first_step, num_steps, block_steps, shard)


class _Reader:
    """Reads so many rows of one step, or of a block of steps from memory; those of one worker.

    Args:
        source, order, augment, seed: As of the pipeline.
        num_rows: b.
        num_parts: Of the whole batch.
    """

    def __init__(
        self, source: Source, order: SampleOrder, augment: Sequence[str], seed: int, num_rows: int, num_parts: int
    ) -> None:
        self._source, self._order, self._seed, self._num_rows = source, order, seed, num_rows
        self._change = build_augmentation(augment, source.schema)
        self._mix = build_mixing(augment, source.schema, order.batch_size // num_parts)
        self._redraw = source.redraw if isinstance(source, Redrawn) else None
        self._announced = source if isinstance(source, Announced) and source.ahead else None
        self._weighted = order.weighted or source.may_skip
        self.reads_blocks = source.in_memory and order.full_batches
        # By the number of steps in a block; a step alone.
        self._traced: dict[int | None, Callable[..., dict]] = {}

    @property
    def draws(self) -> bool:
        """Whether samples are changed by random numbers, which takes time."""
        return bool(self._change or self._mix or self._redraw)

    def steps(self, first_step: int, num_steps: int, begin: int) -> tf.data.Dataset:
        """Elements [b, ...], read in parallel; `begin` is the first row."""
        steps = tf.data.Dataset.range(first_step, first_step + num_steps)
        return self._map(steps, None, self._read_step, begin, tf.data.AUTOTUNE)

    def blocks(self, first_step: int, num_steps: int, block_steps: int, begin: int) -> tf.data.Dataset:
        """Elements [K, b, ...]; the order, the gather and the augmentation of a block are one set of operations."""
        first_steps = tf.data.Dataset.range(first_step, first_step + num_steps, block_steps)
        read = functools.partial(self._read_block, block_steps)
        return self._map(first_steps, block_steps, read, begin, tf.data.AUTOTUNE if self.draws else None)

    def gathered(self, first_step: int, num_steps: int, block_steps: int, begin: int) -> Iterator[dict[str, tf.Tensor]]:
        """The same as `blocks`, each read by whoever asks for it."""
        read = self._trace(block_steps, functools.partial(self._read_block, block_steps))
        steps = range(first_step, first_step + num_steps, block_steps)
        return (read(tf.constant(first, tf.int64), tf.constant(begin, tf.int64)) for first in steps)

    def _map(
        self, steps: tf.data.Dataset, key: int | None, read: Callable[..., dict], begin: int, num_parallel: int | None
    ) -> tf.data.Dataset:
        traced = self._trace(key, read)

        @tf.autograph.experimental.do_not_convert
        def read_from(step: tf.Tensor) -> dict:
            return traced(step, tf.constant(begin, tf.int64))

        return steps.map(read_from, num_parallel_calls=num_parallel)

    def _trace(self, key: int | None, read: Callable[..., dict]) -> Callable[..., dict]:
        if key not in self._traced:

            def on_host(step: tf.Tensor, begin: tf.Tensor) -> dict:
                with tf.device("CPU:0"):
                    return read(step, begin)

            signature = [tf.TensorSpec([], tf.int64)] * 2
            self._traced[key] = tf.function(on_host, signature, autograph=False).get_concrete_function()
        return self._traced[key]

    def _read_block(self, block_steps: int, first: tf.Tensor, begin: tf.Tensor) -> dict:
        size = (block_steps, self._num_rows)
        index, weight = (tf.slice(values, [0, begin], size) for values in self._order.batches(first, block_steps))
        step = first + tf.range(block_steps, dtype=tf.int64)
        position = begin + tf.range(self._num_rows, dtype=tf.int64)
        grid = [tf.reshape(values, [-1]) for values in tf.meshgrid(step, position, indexing="ij")]
        batch = self._source.read(tf.reshape(index, [-1]))
        batch = self._finish(batch, tf.reshape(weight, [-1]), *grid)
        return {name: tf.reshape(values, (*size, *values.shape[1:])) for name, values in batch.items()}

    def _read_step(self, step: tf.Tensor, begin: tf.Tensor) -> dict:
        index, weight = (self._rows(values, begin) for values in self._order.batch(step))
        if self._announced is not None:
            later, _ = self._order.batch(step + self._announced.ahead)
            told = tf.numpy_function(self._announced.announce, [self._rows(later, begin)], tf.int64, stateful=True)
            with tf.control_dependencies([told]):
                index = tf.identity(index)
        position = begin + tf.range(tf.shape(index, tf.int64)[0], dtype=tf.int64)
        return self._finish(self._source.read(index), weight, tf.fill(tf.shape(position), step), position)

    def _rows(self, values: tf.Tensor, begin: tf.Tensor) -> tf.Tensor:
        rows = values[begin : begin + self._num_rows]
        return tf.ensure_shape(rows, [self._num_rows]) if self._order.full_batches else rows

    def _finish(self, batch: dict, weight: tf.Tensor, step: tf.Tensor, position: tf.Tensor) -> dict:
        skipped = batch.pop(SAMPLE_WEIGHT, None)
        if skipped is not None:
            weight *= skipped
        if self._redraw is not None:
            batch = self._redraw(batch, sample_keys(self._seed ^ REDRAWING_SALT, step, position))
        if self._change is not None or self._mix is not None:
            keys = sample_keys(self._seed ^ AUGMENTATION_SALT, step, position)
            batch = self._change(batch, keys) if self._change else batch
            batch = self._mix(batch, keys, weight) if self._mix else batch
        if self._weighted:
            batch[SAMPLE_WEIGHT] = weight
        return batch


def evaluation_batches(source: Source, batch_size: int, shard: Shard = WHOLE) -> tf.data.Dataset:
    """Gives every sample once, in the order of the source; the last batch is filled up with samples of weight 0.

    Args:
        source: What to read.
        batch_size: B.
        shard: What of each batch to read.

    Returns:
        Elements are the features by name, each [b, ...], and always "sample_weight", float32 [b].

    Raises:
        ValueError: `shard` does not divide the batch.
    """
    order = SampleOrder(source.schema.num_samples, batch_size, shuffle=False, remainder="pad")
    rows = shard.rows(batch_size)

    @tf.autograph.experimental.do_not_convert
    def read(step: tf.Tensor) -> dict:
        index, weight = (values[rows] for values in order.batch(step))
        batch = source.read(index)
        skipped = batch.pop(SAMPLE_WEIGHT, None)
        batch[SAMPLE_WEIGHT] = weight if skipped is None else weight * skipped
        return batch

    batches = tf.data.Dataset.range(order.steps_per_epoch)
    batches = batches.map(read, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return batches.with_options(_options())


def steps_of_block(source: Source, order: SampleOrder, most_steps: int) -> int:
    """How many batches to stack: at most `most_steps` and `BLOCK_BYTES`; 1 where batches differ in size."""
    return steps_that_fit(source.schema, order.batch_size, most_steps) if order.full_batches else 1


def steps_that_fit(schema: Schema, batch_size: int, most_steps: int) -> int:
    """How many batches make a block of at most `BLOCK_BYTES`; at least one."""
    sample = sum(tf.as_dtype(f.dtype).size * math.prod(f.shape) for f in schema.features.values())
    return max(1, min(most_steps, BLOCK_BYTES // (sample * batch_size)))


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
