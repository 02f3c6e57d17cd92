import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import COLUMNS, batch_of
from trainer.config.model import TabularModel
from trainer.config.task import ClassificationTask
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.tasks.registry import build_task

TASK = ClassificationTask()


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_numbers_are_normalised_before_precision_is_lost(precision):
    features = {
        "year": Feature((), "float32", mean=2013.0, std=0.5),
        "pixels": Feature((2,), "float32"),
        "label": Feature((), "int32"),
    }
    schema = Schema(features, "label", 10, 2)
    model = build_model(TabularModel(), schema, build_task(TASK, schema), precision)
    inner = type(model)(model.inputs, model.get_layer("normalise").output)
    found = inner({"year": tf.constant([2013.0, 2014.0]), "pixels": tf.constant([[1.0, 2.0], [3.0, 4.0]])})
    np.testing.assert_allclose(tf.cast(found, tf.float32), [[0, 1, 2], [2, 3, 4]])


def test_every_column_matters():
    model = build_model(TabularModel(dropout=0.0), COLUMNS, build_task(TASK, COLUMNS), seed=0)
    batch = batch_of(COLUMNS)
    base = model({name: batch[name] for name in COLUMNS.inputs}).numpy()
    for name in COLUMNS.inputs:
        changed = {
            **batch,
            name: tf.math.floormod(batch[name] + 1, 4) if batch[name].dtype == tf.int32 else batch[name] + 1.0,
        }
        assert not np.allclose(model({n: changed[n] for n in COLUMNS.inputs}), base), name


def test_one_column_is_no_dict():
    schema = Schema({"carrier": COLUMNS.features["carrier"], "label": Feature((), "int32")}, "label", 10, 2)
    task = build_task(TASK, schema)
    model = build_model(TabularModel(), schema, task)
    assert model(task.inputs(batch_of(schema))).shape == (4, 2)
