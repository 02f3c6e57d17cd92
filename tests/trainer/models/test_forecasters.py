import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.models.example_data import IMAGES, batch_of
from trainer.config.sequence_models import TcnModel, TransformerForecasterModel
from trainer.config.task import ClassificationTask, RegressionTask
from trainer.data.source import Feature, Schema
from trainer.models.registry import build_model
from trainer.models.tcn import Delayed
from trainer.tasks.registry import build_task

CHANNELS = ((50.0, 10.0), (0.0, 0.5), (3.0, 2.0))
SERIES = Schema(
    {
        "past": Feature((20, 3), "float32", channels=CHANNELS),
        "coming": Feature((4, 2), "float32", mean=25.0, std=5.0, continues=True),
    },
    "coming",
    100,
)
MODELS = {
    "tcn": TcnModel(levels=3, filters=8),
    "transformer_forecaster": TransformerForecasterModel(layers=1, width=16, heads=2),
}


def built(name: str):
    task = build_task(RegressionTask(), SERIES)
    return build_model(MODELS[name], SERIES, task, seed=0), task


@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_head_is_the_naive_forecast(name):
    model, task = built(name)
    batch = batch_of(SERIES)
    for variable in model.get_layer("output").variables:
        variable.assign(tf.zeros_like(variable))
    naive = np.repeat(batch["past"][:, -1:, :2], 4, axis=1).reshape(4, 8)
    np.testing.assert_allclose(model(task.inputs(batch)), naive, rtol=1e-6)
    model.get_layer("output").bias.assign(np.arange(8.0))
    changed = model(task.inputs(batch)).numpy() - naive
    np.testing.assert_allclose(changed, np.tile(np.arange(8.0) * ([10, 0.5] * 4), (4, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward_compile(name):
    model, task = built(name)
    batch = batch_of(SERIES)
    trainable = [v.value for v in model.trainable_variables]

    @tf.function(jit_compile=True)
    def gradients(trainable, batch):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            others = [v.value for v in model.non_trainable_variables]
            outputs = model.stateless_call(trainable, others, task.inputs(batch), training=True)[0]
            loss = tf.reduce_sum(task.loss(outputs, batch)[0])
        return outputs, tape.gradient(loss, trainable)

    outputs, found = gradients(trainable, batch)
    assert outputs.shape == (4, 8) and all(np.isfinite(g).all() and np.any(g) for g in found)


def test_no_step_sees_a_later_one_and_the_last_sees_as_far_as_is_said():
    model, _ = built("tcn")
    level = keras.Model(model.inputs[0], model.get_layer("level_2_add").output)
    past = np.random.default_rng(0).normal(size=(1, 20, 3)).astype("float32") * 5
    before = level(past).numpy()
    field = 1 + 2 * (3 - 1) * (2**3 - 1)
    for step in (0, 4, 11):
        changed = past.copy()
        changed[0, step] += 10
        differs = np.abs(level(changed).numpy() - before)[0].max(-1) > 0
        assert not differs[:step].any() and differs[step]
        assert not differs[step + field :].any()


def test_a_delayed_step_stands_beside_those_before_it():
    x = np.arange(1.0, 6.0, dtype="float32").reshape(1, 5, 1)
    np.testing.assert_array_equal(Delayed(3, 2)(x)[0], [[1, 0, 0], [2, 0, 0], [3, 1, 0], [4, 2, 0], [5, 3, 1]])


@pytest.mark.parametrize("name", MODELS)
def test_models_of_series_classify_too_and_refuse_what_is_none(name):
    label = Feature((), "int32")
    schema = Schema({"walk": Feature((6, 2), "float32"), "label": label}, "label", 10, 3)
    task = build_task(ClassificationTask(), schema)
    assert build_model(MODELS[name], schema, task).output_shape == (None, 3)
    with pytest.raises(ValueError, match=rf"model.name={name} takes series of shape \[steps, channels\], but"):
        build_model(MODELS[name], IMAGES, build_task(ClassificationTask(), IMAGES))
