"""Measures how fast data come: samples a second of each stage alone, and whether the model would wait for them.

Shape legend: B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf

from trainer.config.data import DataConfig
from trainer.data.augment import build_augmentation
from trainer.data.counter_random import sample_keys
from trainer.data.order import SampleOrder
from trainer.data.pipeline import train_batches
from trainer.data.source import Source

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
        stages: Speed of each stage, each alone on one thread of the caller, and of the whole pipeline.
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
    order = SampleOrder(source.schema.num_samples, data.batch_size, seed, data.shuffle, data.remainder)
    position = tf.range(data.batch_size, dtype=tf.int64)
    pick = tf.function(lambda step: order.batches(step, 1)[0][0], autograph=False)
    read = tf.function(source.read, autograph=False, input_signature=[tf.TensorSpec([data.batch_size], tf.int64)])

    def run_order(step: int) -> object:
        return pick(tf.constant(step, tf.int64))

    # Indices are made before, so that reading is measured alone.
    ready = [run_order(step) for step in range(min(64, order.steps_per_epoch))]

    def run_read(step: int) -> object:
        return read(ready[step % len(ready)])

    stages = [("order", run_order), ("read", run_read)]
    augmentation = build_augmentation(data.augment, source.schema)
    if augmentation is not None:
        change = augmentation
        batch = read(ready[0])
        augment = tf.function(
            lambda step: change(batch, sample_keys(seed, tf.fill(position.shape, step), position)), autograph=False
        )
        stages.append(("augment", lambda step: augment(tf.constant(step, tf.int64))))
    speeds = [_measure(name, run, data.batch_size, duration_s) for name, run in stages]
    speeds.append(_measure_pipeline(source, order, data, seed, duration_s))
    return DataBench(tuple(speeds), data.batch_size, consume() if consume else None)


def _measure(stage: str, run: Callable[[int], object], batch_size: int, duration_s: float) -> StageSpeed:
    """Takes the median over calls: a pause of the machine does not count."""
    run(0)
    times = []
    end = time.perf_counter() + duration_s
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run(len(times))
        times.append(time.perf_counter() - start)
    median = float(np.median(times))
    return StageSpeed(stage, batch_size / median, median * 1e6)


def _measure_pipeline(source: Source, order: SampleOrder, data: DataConfig, seed: int, duration_s: float) -> StageSpeed:
    """Takes the mean: what matters is how many batches come, prefetched in bursts."""
    batches = train_batches(source, order, first_step=0, num_steps=2**40, augment=data.augment, seed=seed)
    iterator = iter(batches)

    @tf.function(reduce_retracing=True)
    def take(count: tf.Tensor) -> None:
        for _ in tf.range(count):
            next(iterator)

    # Inside a graph, as the training loop takes them; grown until one call lasts long enough to measure.
    count, taken = 1, 0.0
    take(tf.constant(1))
    while taken < duration_s and count < 2**30:
        count = count * 2 if taken < duration_s / 4 else max(count, int(count * duration_s / taken * 1.1))
        start = time.perf_counter()
        take(tf.constant(count))
        taken = time.perf_counter() - start
    return StageSpeed("pipeline", count * data.batch_size / taken, taken / count * 1e6)
