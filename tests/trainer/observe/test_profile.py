from pathlib import Path

import tensorflow as tf

from trainer.observe.profile import ProfileWindow
from trainer.observe.profile_order import ProfileOrder


def test_the_calls_that_touch_the_range_are_profiled(tmp_path: Path):
    said: list[str] = []
    window = ProfileWindow(tmp_path, (15, 25), said.append)
    written_at = None
    for step in range(0, 50, 10):
        window.before(step, 10)
        tf.reduce_sum(tf.ones([4]))
        window.after(step + 10)
        if written_at is None and list(tmp_path.rglob("*.xplane.pb")):
            written_at = step + 10
    assert written_at == 30
    assert len(said) == 1 and str(tmp_path) in said[0]
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_run_that_stops_inside_the_range_still_writes(tmp_path: Path):
    window = ProfileWindow(tmp_path, (1, 100), lambda text: None)
    window.before(0, 10)
    window.after(10)
    window.close()
    window.close()
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_a_profiler_in_use_is_reported_and_training_goes_on(tmp_path: Path):
    said: list[str] = []
    tf.profiler.experimental.start(str(tmp_path / "other"))
    try:
        window = ProfileWindow(tmp_path / "ours", (1, 5), said.append)
        window.before(0, 10)
        window.after(10)
    finally:
        tf.profiler.experimental.stop(save=False)
    assert len(said) == 1 and said[0].startswith("no profile of steps 1 to 5")


def test_steps_that_are_ordered_meanwhile_are_profiled_as_well(tmp_path: Path):
    said: list[str] = []
    order = ProfileOrder()
    window = ProfileWindow(tmp_path, None, said.append, order)
    written = []
    for step in range(0, 60, 10):
        if step in (10, 40):
            order.give(15)
        window.before(step, 10)
        tf.reduce_sum(tf.ones([4]))
        window.after(step + 10)
        written.append(len(said))
    assert written == [0, 0, 1, 1, 1, 2]
