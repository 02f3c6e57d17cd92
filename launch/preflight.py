"""A run tried out: its data opened, its model built, a few of its steps taken, nothing written."""

import math
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from launch.config import RunConfig
from launch.quiet_start import import_tensorflow
from launch.step_speed import measure_step
from trainer.observe.number_text import format_bytes, format_count, format_duration, format_number
from trainer.run_folder import RunFolder
from trainer.skipped import Skipped, skipped_of
from trainer.strategies.horovod_installation import check_horovod

if TYPE_CHECKING:
    from trainer.session import Session
    from trainer.strategies.choice import Choice

MOST_STEPS = 200


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        samples: in the training data.
        held_out_samples: None where nothing is evaluated.
        features: shape and type of each, and what the first sample of the first batch holds.
        parameters: of the model.
        steps: in the whole training.
        steps_per_epoch: in one pass over the data.
        batch_size: samples in the global batch.
        loss: of the first batch, with the initial weights.
        first_step_s: seconds until the first step was done, tracing and compiling included.
        step_s: seconds a step after that.
        examples_per_s: samples a second after that.
        training_s: seconds that the whole training would take at this speed, evaluation and start-up not counted.
        peak_memory_bytes: most that this process, or a GPU, held so far.
        checkpoint_bytes: of one checkpoint.
        kept_bytes: of all checkpoints that are on disk at once.
        free_bytes: on the disk of the run folder.
        strategy: name and reason of the one that a run takes.
        skipped_records: those that were left out so far, as `phalanx status` has them; None for none.
        begun: whether the run folder holds a run already, so that `phalanx train` would go on with it.
        problems: why the run would fail, one sentence each.
    """

    samples: int
    held_out_samples: int | None
    features: dict[str, str]
    parameters: int
    steps: int
    steps_per_epoch: int
    batch_size: int
    loss: float
    first_step_s: float
    step_s: float
    examples_per_s: float
    training_s: float
    peak_memory_bytes: int
    checkpoint_bytes: int
    kept_bytes: int
    free_bytes: int
    strategy: dict[str, str]
    begun: bool
    problems: list[str] = field(default_factory=list)
    skipped_records: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def try_out(config: RunConfig) -> Preflight:
    """Open the data, build the model and take steps on the initial weights; of several workers, with one process.

    Raises:
        DataError: the data is missing or damaged.
        HorovodNotUsable: Horovod is asked for and cannot be used.
        NonFiniteLoss: the loss of a first step is NaN or infinite.
        ValueError: model, task and data do not fit together.
    """
    if config.strategy.name == "horovod":
        check_horovod()
    import_tensorflow()
    import tensorflow as tf

    from trainer.session import build_session

    session = build_session(config.for_one_process())
    try:
        first_batch = next(iter(session.batches(0, 1)))
        speed = _take_steps(session)
    except tf.errors.OpError:
        if session.source.failure is not None:
            raise session.source.failure from None
        raise
    checkpoint_bytes = _checkpoint_bytes(session)
    # The one being written and, before it is retired, the oldest one; the best may be kept besides.
    kept_bytes = checkpoint_bytes * (config.checkpoint.keep + 1 + (config.checkpoint.best_metric is not None))
    free_bytes = _free(config.run.folder)
    return Preflight(
        samples=session.schema.num_samples,
        held_out_samples=session.evaluator.source.schema.num_samples if session.evaluator else None,
        features={name: _describe_feature(value) for name, value in first_batch.items()},
        parameters=session.model.count_params(),
        steps=session.total_steps,
        steps_per_epoch=session.order.steps_per_epoch,
        batch_size=config.data.batch_size,
        loss=speed.loss,
        first_step_s=speed.first_step_s,
        step_s=speed.step_s,
        examples_per_s=config.data.batch_size / speed.step_s,
        training_s=session.total_steps * speed.step_s,
        peak_memory_bytes=_peak_memory(tf),
        checkpoint_bytes=checkpoint_bytes,
        kept_bytes=kept_bytes,
        free_bytes=free_bytes,
        strategy=_strategy(config, session).facts,
        begun=RunFolder(config.run.folder).has_progress,
        problems=_disk_problems(config, kept_bytes, free_bytes),
        skipped_records=skipped.to_json() if (skipped := skipped_of(session.sources)) else None,
    )


class _Speed(NamedTuple):
    loss: float
    first_step_s: float
    step_s: float


def _take_steps(session: "Session") -> _Speed:
    """Takes the first steps of the training: one, and then more for a while."""
    import tensorflow as tf

    from trainer.non_finite import explain
    from trainer.step.window import mean_loss

    loop = session.strategy.train_loop(session.step, session.state)
    most_steps = min(session.total_steps, MOST_STEPS)
    blocks = session.blocks(0, most_steps)

    def take(num_steps: int) -> np.ndarray:
        """Returns the sums of the last call of the inner loop."""
        window = np.zeros(0)
        while num_steps:
            block, first, here = blocks.take(num_steps)
            result = loop(block, tf.constant(first), tf.constant(here), tf.constant(True))
            step, not_finite = result.status.numpy().tolist()
            if not_finite:
                raise explain(session, step, step)
            window = result.window.numpy()
            num_steps -= here
        return window

    began = time.monotonic()
    loss = mean_loss(take(1)[: session.step.window.metrics.size])
    first_step_s = time.monotonic() - began
    return _Speed(loss, first_step_s, measure_step(take, most_steps - 1) or first_step_s)


def _strategy(config: RunConfig, session: "Session") -> "Choice":
    import tensorflow as tf

    from trainer.session import embedding_bytes
    from trainer.strategies.choice import choose_strategy, with_suggestion

    workers = config.cluster.max_workers if config.cluster.max_workers > 1 else None
    choice = choose_strategy(config, workers, len(tf.config.list_physical_devices("GPU")))
    return with_suggestion(choice, *embedding_bytes(session.model))


def _disk_problems(config: RunConfig, kept_bytes: int, free_bytes: int) -> list[str]:
    if kept_bytes <= free_bytes:
        return []
    return [
        f"the checkpoints need {format_bytes(kept_bytes)} and {config.run.dir} has {format_bytes(free_bytes)} free: "
        f"free space, lower checkpoint.keep={config.checkpoint.keep}, or choose another disk with run.dir"
    ]


def _checkpoint_bytes(session: "Session") -> int:
    sizes = ((math.prod(shape), np.dtype(_stored(kind)).itemsize) for shape, kind in session.state.shapes().values())
    return sum(count * size for count, size in sizes)


def _stored(kind: str) -> str:
    """numpy knows no bfloat16 by name; it takes as many bytes as float16."""
    return "float16" if kind == "bfloat16" else kind


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _peak_memory(tf: Any) -> int:
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _describe_feature(value: Any) -> str:
    """Shape and type, and the first sample's range or its first values."""
    array = np.asarray(value.numpy())
    sample = array[0]
    text = f"{array.dtype} {list(array.shape[1:])}"
    if sample.ndim == 0:
        return f"{text}, first {sample}"
    if array.dtype.kind in "fiu" and sample.size > 4:
        return f"{text}, first from {sample.min():g} to {sample.max():g}"
    return f"{text}, first {sample.tolist()}"


def describe(found: Preflight) -> str:
    """What was found, as a few lines for people."""
    held_out = f", {found.held_out_samples} held out" if found.held_out_samples is not None else ""
    rows: Mapping[str, str] = {
        "data": f"{found.samples} samples{held_out}",
        **{f"  {name}": text for name, text in found.features.items()},
        "model": f"{format_count(found.parameters)} parameters",
        "training": f"{found.steps} steps of {found.batch_size} samples, {found.steps_per_epoch} an epoch",
        "first step": f"{format_duration(found.first_step_s)}, loss {format_number(found.loss)}",
        "speed": f"{format_count(found.examples_per_s)} samples/s, {format_duration(found.step_s)} a step, about "
        f"{format_duration(found.training_s)} in all",
        "peak memory": format_bytes(found.peak_memory_bytes),
        "checkpoint": f"{format_bytes(found.checkpoint_bytes)}, {format_bytes(found.kept_bytes)} with those that stay",
        "strategy": found.strategy["why"],
        "run folder": "holds a run already: train goes on with it" if found.begun else "new",
    }
    width = max(len(name) for name in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows.items()]
    if found.skipped_records is not None:
        lines[1:1] = Skipped.from_json(found.skipped_records).lines()
    return "\n".join(
        [*lines, *(f"problem: {problem}" for problem in found.problems), *([] if found.problems else ["ok"])]
    )
