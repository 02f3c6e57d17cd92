"""Layers that are frozen at first: what changes when, and that a resumed run thaws as one that never stopped."""

from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import losses, small_session
from tests.trainer.test_training import StopAt, curve, train
from trainer.checkpoint.store import CheckpointStore
from trainer.data.source import Schema


def three_layers(schema: Schema) -> keras.Model:
    """Two dense layers with batch normalisation and dropout between them, and an output."""
    inputs = keras.Input((12,))
    x = keras.layers.Dense(8, name="first")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5, name="first_norm")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(keras.layers.Activation("gelu")(x))
    x = keras.layers.Dense(6, activation="gelu", name="second")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="output")(x))


MODEL = {"name": "tests.trainer.step.test_freezing:three_layers"}
STAGES = [{"layers": ["^first"], "until": "6st"}, {"layers": ["^second$"], "until": "3st"}]
ADAM = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}


def session(**change):
    return small_session(**{"model": MODEL, "freeze": STAGES, "optimizer": ADAM, **change})


def state(session) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in session.state.variables.items()}


def after_each_step(session, num_steps: int) -> list[dict[str, np.ndarray]]:
    """The state at the beginning and after each step, of one traced loop."""
    loop = session.strategy.train_loop(session.step, session.state)
    blocks = session.blocks(session.state.step, num_steps)
    seen = [state(session)]
    for _ in range(num_steps):
        block, first, _ = blocks.take(1)
        loop(block, tf.constant(first), tf.constant(1), tf.constant(True))
        seen.append(state(session))
    return seen


def changed_layers(before: dict, after: dict) -> set[str]:
    """The layers of which a weight, a statistic or a slot differs."""
    names = ("first_norm", "first", "second", "output")
    return {
        next(layer for layer in names if layer in name)
        for name in before
        if any(layer in name for layer in names) and not np.array_equal(before[name], after[name])
    }


@pytest.mark.parametrize("change", [{}, {"train": {"xla": True, "xla_scope": "loop"}}, {"train": {"accumulate": 2}}])
def test_each_stage_thaws_at_its_step(change):
    seen = after_each_step(session(**change), 8)
    moving = [changed_layers(one, other) for one, other in pairwise(seen)]
    assert moving[:3] == [{"output"}] * 3
    assert moving[3:6] == [{"output", "second"}] * 3
    assert moving[6:] == [{"output", "second", "first", "first_norm"}] * 2


def test_frozen_layers_normalise_by_their_moving_averages():
    trained, free = session(), session(freeze=[])
    assert losses(trained, 1) != losses(free, 1)
    norm = trained.model.get_layer("first_norm")
    assert np.array_equal(norm.moving_mean.numpy(), np.zeros(8))
    assert not np.array_equal(free.model.get_layer("first_norm").moving_mean.numpy(), np.zeros(8))


def test_a_thawed_variable_begins_like_a_new_one():
    # Adam's first step is the rate, whatever the gradient's size. Without its own count it would be 3 times that.
    trained = session(freeze=[{"layers": ["^second$"], "until": "5st"}], optimizer={**ADAM, "weight_decay": None})
    *_, before, after = (seen["model/second/kernel"] for seen in after_each_step(trained, 6))
    moved = np.abs(after - before)
    assert np.median(moved) == pytest.approx(0.01, rel=0.01)


def test_layers_that_never_thaw_have_no_slots():
    trained = session(freeze=[{"layers": ["^first"]}])
    before, *_, after = after_each_step(trained, 3)
    assert changed_layers(before, after) == {"second", "output"}
    assert not any("first" in name for name in trained.state.variables if name.startswith("optimizer/"))


def test_two_replicas_draw_the_curve_of_one():
    one, other = (
        session(train={"virtual_workers": 2}),
        session(train={"virtual_workers": 2}, strategy={"name": "mirrored", "devices": 2}),
    )
    np.testing.assert_allclose(losses(one, 9), losses(other, 9), rtol=1e-5)


STOPPED = {"model": MODEL, "freeze": STAGES, "optimizer": ADAM, "train": {"ema": 0.9}}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(folder, **STOPPED)
    return folder


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_stopped_before_a_thaw_goes_on_over_it_to_the_bit(tmp_path, whole_run, step):
    stopped = train(tmp_path, StopAt(tmp_path / "metrics.jsonl", step), **STOPPED)
    assert stopped.stopped == "SIGTERM" and stopped.step < 6
    train(tmp_path, **STOPPED)
    assert curve(tmp_path) == curve(whole_run)
    ends = [
        CheckpointStore(folder / "checkpoints").newest_verified(lambda *_: None, set_aside=False)
        for folder in (whole_run, tmp_path)
    ]
    assert ends[0] is not None and ends[1] is not None
    for name, array in ends[0].arrays.items():
        assert np.array_equal(array, ends[1].arrays[name]), name


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ([{"layers": ["encoder"]}], r"'encoder', which fits no layer of the model: they are named first, "),
        ([{"layers": ["."], "until": "3st"}], r"leaves no layer to train at the first step"),
        ([{"layers": ["["]}], r"must be a regular expression"),
        ([{"layers": ["first"], "until": "30s"}], r"must be in steps or epochs"),
    ],
)
def test_what_cannot_be_frozen_is_refused(freeze, message):
    with pytest.raises(ValueError, match=message):
        session(freeze=freeze)


def test_parameter_servers_are_refused_where_layers_thaw():
    with pytest.raises(ValueError, match=r"freeze with until does not go with strategy.name=parameter_server"):
        session(strategy={"name": "parameter_server"})
    assert tf.executing_eagerly()
