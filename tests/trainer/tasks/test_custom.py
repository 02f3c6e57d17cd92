import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import losses, small_session
from trainer.config.task import CustomTask
from trainer.data.source import Feature, Schema
from trainer.tasks.registry import build_task

SCHEMA = Schema({"x": Feature((3,), "float32"), "y": Feature((), "float32")}, "y", 10)
MODULE = """
import tensorflow as tf
from trainer.tasks.task import Task, sample_weight

class Quantile(Task):
    def __init__(self, schema, quantile):
        super().__init__(schema)
        self.output_shape = (1,)
        self.quantile = quantile
    def loss(self, outputs, batch):
        error = batch["y"] - outputs[:, 0]
        weights = sample_weight(batch, error)
        return tf.maximum(self.quantile * error, (self.quantile - 1) * error) * weights, weights
    def metric_sums(self, outputs, batch):
        return {"below": tf.reduce_sum(tf.cast(batch["y"] < outputs[:, 0], tf.float32))[None]}
    def metrics(self, sums):
        return {"below": float(sums["below"][0])}
    def predictions(self, outputs):
        return {"values": outputs}

def quantile(schema, quantile=0.5):
    return Quantile(schema, quantile)

class Choosing(Quantile):
    def __init__(self, schema):
        super().__init__(schema, 0.5)
        self.target = schema.target
    def loss(self, outputs, batch):
        error = tf.cast(batch[self.target], tf.float32) - outputs[:, 0]
        weights = sample_weight(batch, error)
        if tf.reduce_mean(error) > 0.0:
            error = 2.0 * error
        return error * error * weights, weights
    def metric_sums(self, outputs, batch):
        return {"below": tf.zeros([1])}

def choosing(schema):
    return Choosing(schema)

def nothing():
    return None
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_quantiles.py").write_text(MODULE)
    yield "my_quantiles"
    sys.modules.pop("my_quantiles", None)


def test_a_task_of_the_users_own(module):
    task = build_task(CustomTask(name=f"{module}:quantile", options={"quantile": 0.9}), SCHEMA)
    values, weights = task.loss(tf.constant([[1.0], [1.0]]), {"y": tf.constant([2.0, 0.0])})
    np.testing.assert_allclose(values, [0.9, 0.1])
    np.testing.assert_array_equal(weights, 1)


def test_a_task_may_choose_by_a_tensor_and_our_own_code_is_not_searched_for_it(module):
    session = small_session(task={"name": f"{module}:choosing"})
    assert session.step.converts and all(np.isfinite(losses(session, 4)))
    assert not small_session().step.converts


def test_what_is_no_task_is_refused(module):
    with pytest.raises(ValueError, match=r"my_quantiles:nothing must return a trainer.tasks.task.Task, not NoneType"):
        build_task(CustomTask(name=f"{module}:nothing"), SCHEMA)


def test_unknown_options_are_refused(module):
    with pytest.raises(
        ValueError, match=r"unexpected keyword argument 'quantil': its parameters are \(schema, quantile\)"
    ):
        build_task(CustomTask(name=f"{module}:quantile", options={"quantil": 0.9}), SCHEMA)
