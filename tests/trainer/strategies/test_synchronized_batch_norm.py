"""Batch normalisation with the statistics of the whole batch: the curve of one device, and one for all workers."""

import numpy as np
import pytest

from tests.trainer.sessions import losses, small_session, weights
from tests.trainer.strategies.elastic_workers import Accusation, Workers, curve

STEPS = 6
NORMALISED = {
    "model": {"name": "tests.trainer.strategies.normalised_model:normalised"},
    "data": {"shape": [4, 4, 2]},
}
TRAIN = {"steps": STEPS, "synchronize_batch_norm": True}


def like(found, expected) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def whole():
    session = small_session(**NORMALISED, train={"steps": STEPS}, strategy={"name": "one_device"})
    return losses(session, STEPS), weights(session)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One worker, which has all four parts."""
    return Workers(tmp_path_factory.mktemp("alone"), ["a"], **NORMALISED, train=TRAIN).train()


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": {"name": "one_device"}, "train": {"virtual_workers": 4}},
        {"strategy": {"name": "mirrored", "devices": 2}, "train": {"virtual_workers": 4, "xla": True}},
    ],
    ids=["one", "mirrored"],
)
def test_the_curve_is_that_of_the_whole_batch(whole, change):
    session = small_session(**NORMALISED, strategy=change["strategy"], train={**TRAIN, **change["train"]})
    np.testing.assert_allclose(losses(session, STEPS), whole[0], rtol=2e-5)
    like(weights(session), whole[1])


def test_elastic_workers_draw_it_too_and_deaths_change_no_bit(whole, alone, tmp_path, chaos_long):
    np.testing.assert_allclose([line["loss"] for line in curve(alone)], whole[0], rtol=2e-5)
    like(alone.last_state, whole[1])
    workers = Workers(tmp_path, list("bca")[: 3 if chaos_long else 2], **NORMALISED, train=TRAIN)
    workers.workers["w0"].dies_at = 2
    if chaos_long:
        workers.workers["w1"].dies_at = 4
    workers.train()
    assert workers.sizes == ([3, 2, 1] if chaos_long else [2, 1])
    assert workers.digests == alone.digests and curve(workers) == curve(alone)


def test_two_and_four_workers_have_the_same_bits(alone, tmp_path, long):
    for hosts in ("aa", "aaab"):
        workers = Workers(tmp_path / hosts, list(hosts), **NORMALISED, train=TRAIN).train()
        assert workers.digests == alone.digests and curve(workers) == curve(alone), hosts


def test_wrong_statistics_are_found(alone, tmp_path, long):
    workers = Workers(tmp_path, ["a", "b", "c"], **NORMALISED, train=TRAIN, elastic={"check_every": "2st"})
    session = workers.workers["w1"].session
    meeting = session.strategy.train_loop(session.step, session.state)._meeting
    add_up = meeting._add_up

    def wrong(number, arrivals):
        if session.state.step >= 3:
            arrivals[0].numbers = arrivals[0].numbers * np.float32(1.0001)
        return add_up(number, arrivals)

    meeting._add_up = wrong
    workers.train()
    assert {one._replace(accuser="") for one in workers.accusations} == {Accusation("", ("w1",), 3, True)}
    assert workers.digests == alone.digests


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ValueError, match=r"train.synchronize_batch_norm=true must have layers .* remove it"):
        small_session(train={"synchronize_batch_norm": True})
