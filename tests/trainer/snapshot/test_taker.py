import threading

import pytest
import tensorflow as tf

from trainer.checkpoint.host_buffer import ArraySpec
from trainer.snapshot.file import read_snapshot
from trainer.snapshot.taker import SnapshotTaker

SPECS = {"weights": ArraySpec((4,), "float32")}


class SlowTensor:
    """A tensor whose copy waits until it may go on."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def numpy(self):
        self.asked.set()
        assert self.go_on.wait(30)
        return tf.ones([4]).numpy()


@pytest.fixture
def events():
    return []


@pytest.fixture
def taker(tmp_path, events):
    taker = SnapshotTaker(
        tmp_path / "memory",
        SPECS,
        lambda step, began_at, duration_s: events.append(("taken", step)),
        lambda error: events.append(("failed", str(error))),
    )
    yield taker
    taker.close()


def test_one_that_comes_while_another_is_written_is_left_out(taker, events, tmp_path):
    slow = SlowTensor()
    assert taker.take(3, {"weights": slow}, {})
    assert slow.asked.wait(30)
    assert not taker.ready and not taker.take(4, {"weights": tf.zeros([4])}, {})
    assert events == []  # not before it is safe
    slow.go_on.set()
    taker.close()
    assert events == [("taken", 3)]
    assert read_snapshot(tmp_path / "memory").step == 3


def test_a_variable_that_changes_meanwhile_does_not_change_the_snapshot(taker, tmp_path):
    variable = tf.Variable([1.0, 2.0, 3.0, 4.0])
    before = variable.read_value()
    variable.assign(variable + 1.0)
    variable.assign_add([1.0, 1.0, 1.0, 1.0])
    assert taker.take(1, {"weights": before}, {"metrics": {"loss": 0.5}})
    taker.close()
    snapshot = read_snapshot(tmp_path / "memory")
    assert snapshot.arrays["weights"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert snapshot.metadata == {"metrics": {"loss": 0.5}}


def test_after_a_failure_nothing_more_is_taken(taker, events):
    taker.take(1, {"weights": tf.zeros([4])}, {"too long": "x" * 100_000})
    taker.close()
    [(kind, reason)] = events
    assert kind == "failed" and "metadata" in reason
    assert not taker.ready
