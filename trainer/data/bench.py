"""Measures how fast data come: samples a second of each stage alone, and whether the model would wait for them.

Shape legend: B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import tensorflow as tf

from trainer.config.data import DataConfig
from trainer.data.augment import Batch, build_augmentation
from trainer.data.counter_random import sample_keys
from trainer.data.mixture import sample_order
from trainer.data.pipeline import BLOCK_STEPS, steps_of_block, train_batches
from trainer.data.source import Source

Stage = Callable[[tf.Tensor], Batch]

# The model's speed varies by some percent from run to run: input that is barely faster would still be waited for.
MARGIN = 1.1


@dataclass(frozen=True)
class StageSpeed:
    """How fast one stage is.

    Attributes:
        stage: "order", "read", "augment" or "pipeline" (all of them together, in parallel and with prefetch).
        samples_per_s: Samples a second.
        batch_us: Microseconds for a batch.
    """

    stage: str
    samples_per_s: float
    batch_us: float


@dataclass(frozen=True)
class DataBench:
    """What `bench_data` measured.

    Attributes:
        stages: Speed of each stage, each alone and one call at a time, and of the whole pipeline.
        batch_size: Samples in a batch.
        consumed_per_s: Samples a second that the model takes when it never waits; None if not measured.
    """

    stages: tuple[StageSpeed, ...]
    batch_size: int
    consumed_per_s: float | None

    @property
    def produced_per_s(self) -> float:
        """Samples a second of the whole pipeline."""
        return self.stages[-1].samples_per_s

    @property
    def starved(self) -> bool | None:
        """Whether the model would wait for data; None if the model was not measured."""
        if self.consumed_per_s is None:
            return None
        return self.produced_per_s < MARGIN * self.consumed_per_s

    @property
    def slowest(self) -> StageSpeed:
        """The slowest single stage."""
        return min(self.stages[:-1], key=lambda stage: stage.samples_per_s)

    def as_json(self) -> dict[str, object]:
        """The figures as plain data."""
        return asdict(self) | {"produced_per_s": self.produced_per_s, "starved": self.starved}

    def verdict(self) -> str:
        """One sentence: does the model wait, and if so, what to change."""
        if self.consumed_per_s is None:
            return f"the input gives {self.produced_per_s:,.0f} samples/s"
        ratio = self.produced_per_s / self.consumed_per_s
        if not self.starved:
            return f"the input is {ratio:.1f} times as fast as the model: it would not wait"
        change = {
            "order": "use a larger data.batch_size",
            "read": "set data.cache=memory, or store the samples smaller",
            "augment": "use fewer or cheaper augmentations",
        }[self.slowest.stage]
        return (
            f"the model would wait: the input gives {ratio:.2f} of what it takes; "
            f"{self.slowest.stage} is slowest: {change}"
        )


def bench_data(
    source: Source,
    data: DataConfig,
    *,
    seed: int = 0,
    duration_s: float = 1.0,
    consume: Callable[[], float] | None = None,
) -> DataBench:
    """Measures each stage for about `duration_s` seconds.

    Args:
        source: The training data.
        data: The options of the source, of which batch size, order and augmentation count here.
        seed: Of the order and the augmentation.
        duration_s: Seconds to spend on each stage.
        consume: Measures how many samples a second the model takes when it never waits for data.
    """
    order = sample_order(data, source, seed)
    # As the pipeline does it: from memory, many batches in one call.
    steps = steps_of_block(source, order, BLOCK_STEPS) if source.in_memory else 1
    position = tf.tile(tf.range(data.batch_size, dtype=tf.int64), [steps])

    def pick(step: tf.Tensor) -> tf.Tensor:
        return tf.reshape(order.batches(step * steps, steps)[0], [-1])

    # Indices are made before, so that reading is measured alone.
    indices = tf.stack([pick(tf.constant(step, tf.int64)) for step in range(16)])

    def read(step: tf.Tensor) -> Batch:
        return source.read(tf.ensure_shape(tf.gather(indices, tf.math.floormod(step, 16)), position.shape))

    stages: list[tuple[str, Stage]] = [("order", lambda step: {"index": pick(step)}), ("read", read)]
    change = build_augmentation(data.augment, source.schema)
    if change is not None:
        batch = read(tf.constant(0, tf.int64))
        stages.append(
            ("augment", lambda step: change(batch, sample_keys(seed, tf.fill(position.shape, step), position)))
        )
    speeds = [_measure(name, stage, steps, data.batch_size, duration_s) for name, stage in stages]
    batches = train_batches(source, order, first_step=0, num_steps=2**40, augment=data.augment, seed=seed)
    iterator = iter(batches)
    speeds.append(_measure("pipeline", lambda _: next(iterator), 1, data.batch_size, duration_s))
    return DataBench(tuple(speeds), data.batch_size, consume() if consume else None)


def _measure(name: str, stage: Stage, steps: int, batch_size: int, duration_s: float) -> StageSpeed:
    """Measures a stage that makes `steps` batches a turn: more turns, until one call lasts long enough."""
    repeat = _repeated(stage)
    repeat(tf.constant(1, tf.int64))
    count = 1
    while True:
        start = time.perf_counter()
        repeat(tf.constant(count, tf.int64))
        taken_s = time.perf_counter() - start
        if taken_s >= duration_s / 2:
            batches = count * steps
            return StageSpeed(name, batches * batch_size / taken_s, taken_s / batches * 1e6)
        count = max(count + 1, min(count * 10, int(count * duration_s / taken_s)))


def _repeated(stage: Stage) -> Callable[[tf.Tensor], object]:
    """Repeats a stage inside a graph, as the training loop does: a call from Python costs more than the stage."""

    @tf.function(autograph=False)
    def repeat(count: tf.Tensor) -> object:
        def turn(step: tf.Tensor, used: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # One number of each result is used: what nobody uses, TensorFlow would not compute.
            firsts = [tf.cast(tf.reshape(values, [-1])[0], tf.float32) for values in stage(step).values()]
            return step + 1, used + tf.add_n(firsts)

        start = [tf.constant(0, tf.int64), tf.constant(0.0)]
        return tf.while_loop(lambda step, used: step < count, turn, start, parallel_iterations=1)

    return repeat
