import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, f1_score

from trainer.config.task import MultiLabelTask
from trainer.data.source import Feature, Schema
from trainer.tasks.registry import build_task

LABELS = 4


def task_of(threshold: float = 0.5):
    features = {"x": Feature((3,), "float32"), "labels": Feature((LABELS,), "int32")}
    return build_task(MultiLabelTask(threshold=threshold), Schema(features, "labels", 10, LABELS))


def samples():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (30, LABELS)).astype("int32")
    targets[:, 3] = 0  # a label that never occurs
    logits = (rng.normal(size=(30, LABELS)) + targets).astype("float32")
    logits[:, 3] = -9
    return logits, targets, rng.choice([0.0, 1.0, 2.0], 30).astype("float32")


@pytest.mark.parametrize("threshold", [0.5, 0.7])
@pytest.mark.parametrize("batch", [30, 7])
def test_equals_scikit_learn(batch, threshold):
    task, (logits, targets, weights) = task_of(threshold), samples()
    sums_of = tf.function(lambda x, y, w: task.metric_sums(x, {"labels": y, "sample_weight": w}), jit_compile=True)
    sums: dict[str, np.ndarray] = {}
    for i in range(0, 30, batch):
        part = [tf.constant(array[i : i + batch]) for array in (logits, targets, weights)]
        for name, value in sums_of(*part).items():
            sums[name] = sums.get(name, 0) + value.numpy().astype(np.float64)
    predicted = (1 / (1 + np.exp(-logits)) >= threshold).astype(int)
    expected = {
        "micro_f1": f1_score(targets, predicted, average="micro", sample_weight=weights),
        # The label that never occurs counts 0.
        "macro_f1": f1_score(targets[:, :3], predicted[:, :3], average="macro", sample_weight=weights) * 3 / 4,
        "subset_accuracy": accuracy_score(targets, predicted, sample_weight=weights),
    }
    assert task.metrics(sums) == pytest.approx(expected, rel=1e-6)


def test_loss_is_the_mean_cross_entropy_of_the_labels():
    logits, targets, weights = samples()
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    entropies = -np.where(targets, np.log(probabilities), np.log1p(-probabilities)).mean(1)
    losses, loss_weights = task_of().loss(
        tf.constant(logits), {"labels": tf.constant(targets), "sample_weight": tf.constant(weights)}
    )
    np.testing.assert_allclose(losses, entropies * weights, rtol=1e-5)
    np.testing.assert_array_equal(loss_weights, weights)


def test_huge_logits_give_a_finite_loss():
    losses, _ = task_of().loss(tf.constant([[1e5, -1e5, 0.0, 0.0]]), {"labels": tf.constant([[0, 1, 0, 1]])})
    np.testing.assert_allclose(losses, [(2e5 + 2 * np.log(2)) / 4])


def test_a_single_class_is_refused():
    schema = Schema({"x": Feature((3,), "float32"), "label": Feature((), "int32")}, "label", 10, 4)
    with pytest.raises(ValueError, match=r"multi_label needs a vector of zeros and ones .* 'label' of shape \[\]"):
        build_task(MultiLabelTask(), schema)
