import math

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.task import ClassificationTask
from trainer.data.source import Feature, Schema
from trainer.tasks.decision import calibrated, halves
from trainer.tasks.registry import build_task

COUNT = 4000
SCHEMA = Schema(
    {"amount": Feature((), "float32"), "pixels": Feature((2, 3), "float32"), "label": Feature((), "int32")},
    "label",
    COUNT,
    2,
    ("fraud", "honest"),
)


def test_a_samples_half_follows_from_its_values_alone():
    rng = np.random.default_rng(0)
    features = {
        "amount": np.round(rng.normal(size=COUNT), 1).astype("float32"),  # few values, whose last bits are alike
        "kind": rng.integers(0, 3, COUNT).astype("int32"),
        "pixels": rng.integers(0, 2, (COUNT, 2, 3)).astype("float32"),
    }
    compiled = tf.function(halves, jit_compile=True)
    whole = compiled({name: tf.constant(values) for name, values in features.items()}).numpy()
    assert 0.45 < whole.mean() < 0.55 and set(whole) == {0, 1}
    order = rng.permutation(COUNT)[:100]
    part = halves({name: tf.constant(values[order]) for name, values in features.items()}).numpy()
    np.testing.assert_array_equal(part, whole[order])


def made_up(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are true log-odds, and whether each sample is positive."""
    scores = rng.normal(-1.5, 2.0, COUNT)
    return scores, rng.random(COUNT) < 1 / (1 + np.exp(-scores))


def test_the_threshold_of_one_half_is_measured_on_the_other():
    rng = np.random.default_rng(0)
    scores, positive = made_up(rng)
    half, weights = np.arange(COUNT) % 2, np.ones(COUNT)
    found = calibrated(scores, positive, weights, half, 0.8)
    called = (half == 1) & (1 / (1 + np.exp(-scores)) >= found["threshold"])
    assert found["threshold_precision"] == pytest.approx(positive[called].mean())
    assert found["threshold_recall"] == pytest.approx((called & positive).sum() / positive[half == 1].sum())
    assert abs(found["threshold_precision"] - 0.8) < 0.05
    # What the other half says changes what is measured and not the threshold.
    turned = calibrated(scores, np.where(half == 1, ~positive, positive), weights, half, 0.8)
    assert turned["threshold"] == found["threshold"] and turned["threshold_precision"] < 0.5


def test_a_precision_that_nothing_reaches_has_no_threshold():
    scores, half = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])
    found = calibrated(scores, np.array([True, False, True, True]), np.ones(4), half, 0.9)
    assert all(math.isnan(value) for value in found.values())


def test_an_evaluation_calibrates_where_a_precision_is_asked_for():
    task = build_task(ClassificationTask(positive="fraud", target_precision=0.8), SCHEMA)
    rng = np.random.default_rng(0)
    scores, positive = made_up(rng)
    batch = {
        "amount": tf.constant(rng.normal(size=COUNT), tf.float32),
        "pixels": tf.zeros([COUNT, 2, 3]),
        "label": tf.constant(np.where(positive, 0, 1), tf.int32),
    }
    logits = tf.constant(np.stack([scores, np.zeros(COUNT)], 1), tf.float32)
    metrics = task.collected_metrics({name: value.numpy() for name, value in task.collect(logits, batch).items()})
    assert metrics.keys() == {"auc", "pr_auc", "threshold", "threshold_precision", "threshold_recall"}
    assert abs(metrics["threshold_precision"] - 0.8) < 0.06
