import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from trainer.config.task import RegressionTask
from trainer.data.source import Feature, Schema
from trainer.tasks.registry import build_task


def task_of(shape=(), mean=None, std=None, **keys):
    features = {"x": Feature((3,), "float32"), "y": Feature(shape, "float32", mean=mean, std=std)}
    return build_task(RegressionTask(**keys), Schema(features, "y", 100))


def totals(task, outputs, targets, weights, batch):
    sums_of = tf.function(lambda o, y, w: task.metric_sums(o, {"y": y, "sample_weight": w}), jit_compile=True)
    sums: dict[str, np.ndarray] = {}
    for i in range(0, len(targets), batch):
        part = [tf.constant(array[i : i + batch]) for array in (outputs, targets, weights)]
        for name, value in sums_of(*part).items():
            sums[name] = sums.get(name, 0) + value.numpy().astype(np.float64)
    return sums


@pytest.mark.parametrize("offset", [0.0, 10_000.0])
@pytest.mark.parametrize(("shape", "batch"), [((), 20), ((), 7), ((2,), 7)])
def test_equals_scikit_learn(shape, batch, offset):
    rng = np.random.default_rng(0)
    targets = (offset + rng.normal(size=(40, *shape))).astype("float32")
    outputs = (targets + 0.5 * rng.normal(size=(40, *shape))).astype("float32").reshape(40, -1)
    weights = rng.choice([0.0, 1.0, 2.0], 40).astype("float32")
    task = task_of(shape, mean=offset, std=1.0)
    flat = targets.reshape(40, -1)
    mse = mean_squared_error(flat, outputs, sample_weight=weights)
    expected = {
        "mse": mse,
        "mae": mean_absolute_error(flat, outputs, sample_weight=weights),
        "rmse": np.sqrt(mse),
        "r2": r2_score(flat, outputs, sample_weight=weights),
    }
    actual = task.metrics(totals(task, outputs, targets, weights, batch))
    assert actual == pytest.approx(expected, rel=1e-4)


def test_a_target_that_never_varies():
    task = task_of()
    targets, weights = np.full(5, 2.0, "float32"), np.ones(5, "float32")
    met = totals(task, targets[:, None], targets, weights, 5)
    missed = totals(task, targets[:, None] + 1, targets, weights, 5)
    assert task.metrics(met)["r2"] == 1.0
    assert task.metrics(missed)["r2"] == 0.0


@pytest.mark.parametrize(("loss", "expected"), [("squared", [4.0, 0.25]), ("absolute", [2.0, 0.5])])
def test_loss_counts_in_standard_deviations_and_metrics_in_the_unit_of_the_target(loss, expected):
    task = task_of(mean=5.0, std=10.0, loss=loss)
    batch = {"y": tf.constant([0.0, 5.0])}
    outputs = tf.constant([[20.0], [10.0]])
    losses, weights = task.loss(outputs, batch)
    np.testing.assert_allclose(losses, expected)
    np.testing.assert_array_equal(weights, 1)
    sums = {name: value.numpy() for name, value in task.metric_sums(outputs, batch).items()}
    assert task.metrics(sums)["mae"] == pytest.approx(12.5)


def test_a_class_is_no_number_to_predict():
    schema = Schema({"x": Feature((3,), "float32"), "label": Feature((), "int32")}, "label", 10, 4)
    with pytest.raises(ValueError, match=r"regression needs a number .* with 4 classes"):
        build_task(RegressionTask(), schema)
