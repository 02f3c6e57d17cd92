"""Replicas that meet once in several steps: one curve for any number of workers, whoever dies, to the bit."""

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import small_session, weights
from tests.trainer.strategies.elastic_workers import Workers, curve

STEPS = 12
OUTER = {
    "train": {"steps": STEPS, "log_every": 6, "steps_per_loop": 2},
    "elastic": {"outer_every": 3},
    # Due between two outer steps: then they wait for the next one.
    "evaluate": {"every": "4st"},
    "checkpoint": {"every": "5st", "max_overhead": None},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Workers(tmp_path_factory.mktemp("alone"), ["a"], **OUTER).train()


def test_the_death_of_a_chief_and_other_numbers_of_workers_change_no_bit(undisturbed, tmp_path, chaos_long):
    # A third worker, who dies as well, takes a session's time.
    workers = Workers(tmp_path, list("bca")[: 3 if chaos_long else 2], **OUTER)
    workers.workers["w0"].dies_at = 4  # within a round
    if chaos_long:
        workers.workers["w1"].dies_at = 8
    workers.train()
    assert workers.sizes == ([3, 2, 1] if chaos_long else [2, 1])
    assert workers.digests == undisturbed.digests
    assert curve(workers) == curve(undisturbed)
    evaluated = [line["step"] for line in curve(workers) if "split" in line]
    assert evaluated == [6, 9, 12]
    line = next(line for line in curve(workers) if "bytes_per_step" in line)
    # Weights and both moments of Adam, once in three steps.
    state = undisturbed.last_state
    weights_bytes = sum(v.nbytes for name, v in state.items() if name.startswith("model/") and "seed" not in name)
    assert weights_bytes <= line["bytes_per_step"] <= 1.5 * weights_bytes


def test_one_replica_with_a_plain_mean_is_the_training_that_it_was(tmp_path, long):
    options = {**OUTER, "train": {**OUTER["train"], "virtual_workers": 1}}
    options["elastic"] = {"outer_every": 3, "outer_learning_rate": 1.0, "outer_momentum": 0.0}
    workers = Workers(tmp_path, ["a"], **options).train()
    plain = {**OUTER, "elastic": {}, "train": {**OUTER["train"], "virtual_workers": 1}}
    expected = Workers(tmp_path / "plain", ["a"], **plain).train().last_state
    for name, values in workers.last_state.items():
        if not name.startswith("outer/"):
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_meeting_after_every_step_is_the_mean_gradient_of_plain_descent(tmp_path, long):
    sgd = {"optimizer": {"name": "sgd", "momentum": 0.0, "learning_rate": 0.1}}
    options = {"outer_every": 1, "outer_learning_rate": 1.0, "outer_momentum": 0.0}
    workers = Workers(tmp_path, ["a", "b"], **sgd, train={"steps": 6}, elastic=options).train()
    session = small_session(**sgd, train={"steps": 6, "virtual_workers": 4})
    loop = session.strategy.train_loop(session.step, session.state)
    blocks = session.blocks(0, 6)
    for _ in range(6):
        block, first, taken = blocks.take(1)
        loop(block, tf.constant(first), tf.constant(taken), tf.constant(True))
    for name, values in weights(session).items():
        np.testing.assert_allclose(workers.last_state[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_nesterov_momentum_of_the_mean_difference(tmp_path, long):
    """The outer optimizer by its definition, from the states around two rounds of one replica."""
    options = {**OUTER, "train": {**OUTER["train"], "virtual_workers": 1, "steps": 6}}
    rate, momentum = 0.5, 0.8
    outer = {"outer_every": 3, "outer_learning_rate": rate, "outer_momentum": momentum}
    workers = Workers(tmp_path, ["a"], **{**options, "elastic": outer})
    loop = workers.workers["w0"].session.strategy.train_loop(None, None)
    rounds = []
    step = loop._outer_step

    def spied(start, sums):
        after = step(start, sums)
        means = dict(zip(loop._means, sums, strict=False))
        rounds.append(tuple({k: np.array(v) for k, v in values.items()} for values in (start, means, after)))
        return after

    loop._outer_step = spied
    workers.train()
    assert len(rounds) == 2
    kept = {}
    for start, means, after in rounds:
        for name in (name for name in means if name.startswith("model/")):
            difference = start[name] - means[name]
            kept[name] = momentum * kept.get(name, 0.0) + difference
            expected = start[name] - rate * (difference + momentum * kept[name])
            np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-7)
