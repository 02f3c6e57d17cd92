"""A gradient that is not finite while the loss is: found before it is applied, whatever runs the step."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import merged, small_config, small_session
from tests.trainer.strategies.test_one_device import COMPILERS
from trainer.group import Group
from trainer.membership import Joined
from trainer.non_finite import explain
from trainer.session import build_session
from trainer.strategies.tpu import Tpu


@keras.saving.register_keras_serializable("tests")
def root(x):
    """The square root of |hidden|, or of 0 for a sample with a number above 0.98: its gradient is 0 times infinity."""
    hidden, inputs = x
    return tf.sqrt(tf.abs(hidden) * tf.where(tf.reduce_max(inputs, -1, keepdims=True) > 0.98, 0.0, 1.0))


def rooted(schema) -> keras.Model:
    inputs = keras.Input((12,))
    hidden = keras.layers.Dense(4, bias_initializer="ones", name="before")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="after")(keras.layers.Lambda(root)([hidden, inputs])))


ROOTED = {
    "model": {"name": "tests.trainer.strategies.test_non_finite_gradient:rooted"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
}


class Alone:
    """A membership whose groups have one member."""

    broken = ConnectionError
    rank, size = 0, 1

    def join(self) -> Joined:
        return Joined(Group(0, ("127.0.0.1:1",)), ("here",), self, lambda: None, None)

    def all_gather(self, data):
        return [data]

    def transfer(self, senders, receivers, arrays):
        raise AssertionError("nobody lacks a state")

    def reduction(self, parts, num_parts, num_elements, dtype):
        own = [np.zeros(num_elements, dtype) for _ in parts[0]]
        space = np.zeros(num_elements + 64, dtype)  # TensorFlow reads it where it lies, from a multiple of 64 bytes on
        total = space[-space.ctypes.data % 64 // space.itemsize :][:num_elements]
        return SimpleNamespace(own=own, run=lambda: np.sum(own, axis=0, out=total))


def session_of(kind: str, change: dict):
    if kind == "tpu":
        config = small_config(**merged(change, {"strategy": {"name": "tpu"}}))
        return build_session(config, new_strategy=lambda *_: Tpu(tf.distribute.OneDeviceStrategy("CPU:0")))
    if kind == "elastic":
        config = small_config(**merged(change, {"strategy": {"name": "elastic"}, "train": {"virtual_workers": 2}}))
        session = build_session(config, membership=Alone())
        session.strategy.train_loop(session.step, session.state)
        session.strategy.warm_up(session.blocks(0, 1).take(1).block)
        session.strategy.own_state()
        session.strategy.join({})
        return session
    if kind == "mirrored":
        return small_session(**merged(change, {"strategy": {"name": "mirrored", "devices": 2}}))
    return small_session(**merged(change, {"train": COMPILERS[kind]}))


@pytest.mark.parametrize("kind", [*COMPILERS, "mirrored", "tpu", "elastic"])
def test_it_is_not_applied_and_its_variables_are_named(kind):
    session = session_of(kind, ROOTED)
    loop = session.strategy.train_loop(session.step, session.state)
    block = session.blocks(0, 2).take(2).block
    (feature,) = session.schema.inputs
    values = np.minimum(np.array(block[feature]), 0.9)
    values[1, -1] = 1.0  # of the second part, and of the second replica
    block = {**block, feature: tf.constant(values)}

    def take(first: int, num_steps: int) -> list[int]:
        return loop(block, tf.constant(first), tf.constant(num_steps), tf.constant(True)).status.numpy().tolist()

    assert take(0, 1) == [1, 0]
    before = {name: variable.numpy() for name, variable in session.state.variables.items() if name != "window"}
    assert take(1, 1) == [1, 1]
    for name, value in before.items():
        np.testing.assert_array_equal(session.state.variables[name].numpy(), value, err_msg=name)

    session.batches = lambda *_: [{name: value[1] for name, value in block.items()}]
    error = explain(session, 1, 1)
    assert str(error).startswith("the gradient of step 2 is not finite: the gradient of before/kernel is not finite")
    assert "the gradient of before/bias is not finite" in error.causes and len(error.causes) == 2
