"""Sums that begin beside the backward pass: no bit differs, whoever dies in whatever moment, and they do begin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from cluster.process_group.reduction import Reduction
from tests.trainer.strategies.elastic_workers import Died, Workers, curve
from trainer.config.elastic import ElasticConfig
from trainer.non_finite import NonFiniteLoss
from trainer.strategies.contribution_layout import ContributionLayout
from trainer.strategies.overlap import Overlap, can_overlap

# Two tensors that fill a bucket each. Of two workers one has two parts, which are computed beside each other, and one
# a single part, whose gradients are computed in the call that applies the sum before.
LARGE = {
    "model": {"name": "mlp", "hidden": [128, 160]},
    "data": {"name": "synthetic", "shape": [300], "num_classes": 4, "num_samples": 48, "batch_size": 12},
}
TRAIN = {"steps": 4, "virtual_workers": 3, "steps_per_loop": 2, "log_every": 2, "xla": True, "xla_scope": "update"}
NUM_STEPS, NUM_BUCKETS = 4, 2
_PATIENCE_S = 60.0


def workers(folder, hosts: str, overlap: str, learning_rate: float = 1e-3, **elastic) -> Workers:
    options = {"overlap": overlap, "bytes_per_bucket": "64KiB", **elastic}
    optimizer = {"name": "adam", "learning_rate": learning_rate}
    return Workers(folder, list(hosts), elastic=options, train=TRAIN, optimizer=optimizer, **LARGE)


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that have added up a bucket beside arithmetic."""
    names: list[str] = []
    run_range = Reduction.run_range

    def counted(self: Reduction) -> None:
        names.append(threading.current_thread().name)
        run_range(self)

    monkeypatch.setattr(Reduction, "run_range", counted)
    return names


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Workers:
    """One worker that computes all parts."""
    return workers(tmp_path_factory.mktemp("plain"), "a", "never").train()


def test_hosts_and_deaths_change_no_bit_and_one_host_does_not_begin_early(plain, early, tmp_path):
    several = workers(tmp_path, "aba", "auto")
    several.workers["w1"].dies_at = 2  # whoever is left shares a host
    assert several.train().digests == plain.digests
    assert several.sizes[:2] == [3, 2]
    # The first bucket of the third step may have been begun, which the dead one is missing in.
    assert 3 * 2 * NUM_BUCKETS <= len(early) <= 3 * 2 * NUM_BUCKETS + 2
    assert set(early) == {"sums"}


@pytest.mark.parametrize(
    ("hosts", "elastic"),
    [("aa", {"check_every": "2st"}), ("ab", {"shard_optimizer": True}), ("ab", {"compression": "bfloat16"})],
    ids=["checked", "sharded", "rounded"],
)
def test_other_options_keep_their_bits(hosts, elastic, plain, early, tmp_path, chaos_long):
    if not chaos_long and hosts == "ab":
        pytest.skip("takes seconds: --chaos-long")
    if "compression" in elastic:
        plain = workers(tmp_path / "plain", "a", "never", **elastic).train()
        assert not early
    found = workers(tmp_path / "beside", hosts, "always", **elastic).train()
    assert found.digests == plain.digests and curve(found) == curve(plain)
    num_compared = NUM_STEPS // 2 if "check_every" in elastic else 0  # before anything is added up
    assert len(early) == (NUM_STEPS - num_compared) * NUM_BUCKETS * 2


@pytest.mark.parametrize(("victim", "bucket"), [("w1", 3), ("w0", 4)], ids=["first bucket", "second bucket"])
def test_a_worker_that_dies_while_a_bucket_is_sent_costs_no_step(victim, bucket, plain, early, tmp_path, chaos_long):
    if not chaos_long and bucket == 3:
        pytest.skip("takes seconds: --chaos-long")
    broken = workers(tmp_path, "ab", "always")
    endpoint = broken.workers[victim].endpoint
    join = endpoint.join

    def joined(*arguments):
        group = join(*arguments)
        operation, begun = group._operation, []

        def dying(looks=True):
            if not looks:
                begun.append(threading.current_thread().name)
                if len(begun) == bucket:
                    group._links.finish = end  # when some frames have left
            return operation(looks)

        group._operation = dying
        return group

    def end(*_):
        raise Died

    endpoint.join = joined
    assert broken.train().digests == plain.digests
    assert broken.sizes == [2, 1]
    assert len(early) > bucket + 2 * NUM_BUCKETS  # the survivor goes on in the same way


def test_a_sum_that_is_not_finite_leaves_nobody_waiting(early, tmp_path):
    # So large a step that the next one is not finite, when the gradients after it have been asked for.
    with pytest.raises(NonFiniteLoss):
        workers(tmp_path, "ab", "always", learning_rate=1e30).train()
    assert len(early) == 2 * NUM_BUCKETS * 2
    assert all(thread.name != "sums" for thread in threading.enumerate())


class Told:
    """Stands for a reduction: says when it is asked for a range, and adds up nothing."""

    def __init__(self, num_elements: int, num_parts: int) -> None:
        self.own = [np.zeros(num_elements, np.float32) for _ in range(num_parts)]
        self.begun: list[np.ndarray] = []
        self.asked = threading.Event()

    def run_range(self) -> None:
        self.begun.append(self.own[0].copy())
        self.asked.set()


def traced(overlap: Overlap, layout: ContributionLayout, between: Callable[[], object]) -> Callable[[], object]:
    """A backward pass of two layers: the second one's gradient, something that takes its time, the first one's."""

    @tf.function
    def backward(part: tf.Tensor) -> Sequence[tf.Tensor]:
        second = tf.fill([200, 100], tf.cast(part, tf.float32))
        waited = tf.numpy_function(between, [second], tf.float32, stateful=False)  # in no order with others
        first = tf.ensure_shape(tf.fill([150, 200], 1.0) + tf.reshape(waited, []), [150, 200])
        joined = layout.join([first, tf.zeros([3]), second])
        overlap.listen(layout, 3, joined, part)
        return joined

    return backward.get_concrete_function(tf.TensorSpec([], tf.int64))


def test_the_sum_of_the_last_layer_begins_while_the_first_one_is_computed():
    layout = ContributionLayout([tf.TensorSpec([150, 200]), tf.TensorSpec([3]), tf.TensorSpec([200, 100])], 2)
    overlap, reduction = Overlap(ElasticConfig(overlap="always", bytes_per_bucket=1 << 16)), Told(50_016, 1)

    def between(_: np.ndarray) -> np.float32:
        assert reduction.asked.wait(_PATIENCE_S), "nothing is added up before the first layer's gradient is there"
        return np.float32(0)

    backward = traced(overlap, layout, between)
    assert overlap.ranges(50_016) == [(30_016, 50_016), (16, 30_016), (0, 16)]
    overlap.move_to(["a", "a"])
    assert overlap.is_on and not overlap.there
    with overlap.beside(reduction, [5], {}):
        joined = backward(tf.constant(5, tf.int64))
        assert overlap.there == {0, 2}
    overlap.finish()
    last, first = reduction.begun
    assert (last[30_016:] == 5).all() and not last[:30_016].any()
    assert (first[16:30_016] == 1).all() and not first[:16].any(), "small ones are packed with the votes"

    again = Told(50_016, 2)
    with overlap.beside(again, [5, 6], {5: joined}):  # computed for a group that broke
        backward(tf.constant(4, tf.int64))  # another worker's
        assert not again.begun
        backward(tf.constant(6, tf.int64))
    overlap.finish()
    assert len(again.begun) == 2
    assert again.own[0].tobytes() == reduction.own[0].tobytes()
    assert (again.own[1][30_016:] == 6).all() and (again.own[1][16:30_016] == 1).all()


@pytest.mark.parametrize(
    ("options", "num_parts", "compiled", "synchronized", "can"),
    [
        ({}, 2, False, False, True),
        ({"overlap": "never"}, 2, False, False, False),
        ({}, 1, False, False, False),
        ({}, 2, True, False, False),
        ({}, 2, False, True, False),  # the group is in use while gradients are computed
        ({"compression": "top_k"}, 2, False, False, False),
        ({"outer_every": 5}, 2, False, False, False),
    ],
)
def test_auto_does_without_what_it_cannot_have(options, num_parts, compiled, synchronized, can):
    step = SimpleNamespace(compiles_gradients=compiled, gradients=SimpleNamespace(is_synchronized=synchronized))
    assert can_overlap(ElasticConfig(**{"overlap": "auto", **options}), step, num_parts) == can


def test_an_error_of_the_backward_pass_ends_the_sum():
    layout = ContributionLayout([tf.TensorSpec([200, 100])])
    overlap, reduction = Overlap(ElasticConfig(overlap="always", bytes_per_bucket=1 << 16)), Told(20_000, 1)
    listening = tf.function(lambda value: overlap.listen(layout, 1, layout.join([value]), tf.constant(0, tf.int64)))
    listening.get_concrete_function(tf.TensorSpec([200, 100]))
    with pytest.raises(KeyError), overlap.beside(reduction, [0], {}):
        raise KeyError("of a task")
    assert not overlap.there and not reduction.begun
    for thread in threading.enumerate():
        if thread.name == "sums":
            thread.join(_PATIENCE_S)
            assert not thread.is_alive()
