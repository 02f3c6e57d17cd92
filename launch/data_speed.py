"""How fast a config's data come beside how fast its model takes them."""

from typing import TYPE_CHECKING

from launch.config import RunConfig
from launch.quiet_start import import_tensorflow
from launch.step_speed import MEASURED_S, measure_step
from trainer.observe.number_text import format_count

if TYPE_CHECKING:
    from trainer.data.bench import DataBench
    from trainer.session import Session

MOST_BLOCKS = 1 << 16


def measure_data(config: RunConfig, duration_s: float = MEASURED_S) -> "DataBench":
    """Measure each stage of the input for `duration_s` seconds, and the model on a few batches over and over.

    Raises:
        DataError: the data is missing or damaged.
        ValueError: model, task and data do not fit together.
    """
    import_tensorflow()
    from trainer.data.bench import bench_data
    from trainer.session import build_session

    session = build_session(config.for_one_process())
    return bench_data(
        session.source,
        config.data,
        seed=config.train.seed,
        duration_s=duration_s,
        consume=lambda: _samples_per_s(session, duration_s),
    )


def _samples_per_s(session: "Session", duration_s: float) -> float:
    """Samples a second that the model takes when it never waits."""
    import tensorflow as tf

    loop = session.strategy.train_loop(session.step, session.state)
    block, first, num_steps = session.blocks(0, session.total_steps).take(session.total_steps)

    def take(times: int) -> None:
        for _ in range(times):
            loop(block, tf.constant(first), tf.constant(num_steps), tf.constant(True)).status.numpy()

    take(1)
    block_s = measure_step(take, MOST_BLOCKS, duration_s)
    assert block_s is not None, "at least one block may be taken"
    return session.order.batch_size * num_steps / block_s


def describe_speed(bench: "DataBench") -> str:
    """A table of the stages, the model below them, and the verdict."""
    rows = [(stage.stage, stage.samples_per_s, stage.batch_us) for stage in bench.stages]
    if bench.consumed_per_s is not None:
        rows.append(("model", bench.consumed_per_s, bench.batch_size / bench.consumed_per_s * 1e6))
    lines = [f"{'stage':<10}{'samples/s':>12}{'us a batch':>14}"]
    lines += [f"{name:<10}{format_count(speed):>12}{batch_us:>14,.0f}" for name, speed, batch_us in rows]
    return "\n".join([*lines, bench.verdict()])
