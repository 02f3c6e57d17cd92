import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from trainer.config.task import ClassificationTask
from trainer.data.source import Feature, Schema
from trainer.tasks.classification import Classification
from trainer.tasks.registry import build_task


def schema_of(num_classes: int) -> Schema:
    features = {"x": Feature((3,), "float32"), "label": Feature((), "int32")}
    return Schema(features, "label", 100, num_classes)


def samples(num_classes: int, count: int = 57) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, num_classes, count).astype("int32")
    logits = rng.normal(size=(count, num_classes)).astype("float32")
    logits[np.arange(count), labels] += 0.7
    return logits, labels, rng.choice([0.0, 0.5, 1.0, 2.0], count).astype("float32")


def measured(task, logits, labels, weights, batch: int, jit: bool = True) -> dict[str, float]:
    """Loss and metrics, the samples cut into batches."""

    @tf.function(jit_compile=jit)
    def sums_of(logits, labels, weights):
        one = {"label": labels, "sample_weight": weights}
        losses, loss_weights = task.loss(logits, one)
        return {"loss": tf.reduce_sum(losses), "weight": tf.reduce_sum(loss_weights), **task.metric_sums(logits, one)}

    totals: dict[str, np.ndarray] = {}
    collected: dict[str, list[np.ndarray]] = {}
    for i in range(0, len(labels), batch):
        part = [tf.constant(array[i : i + batch]) for array in (logits, labels, weights)]
        for name, value in sums_of(*part).items():
            totals[name] = totals.get(name, 0) + value.numpy().astype(np.float64)
        for name, value in task.collect(part[0], {"label": part[1], "sample_weight": part[2]}).items():
            collected.setdefault(name, []).append(value.numpy())
    whole = {name: np.concatenate(parts) for name, parts in collected.items()}
    loss = float(totals.pop("loss") / totals.pop("weight"))
    return {"loss": loss, **task.metrics(totals), **task.collected_metrics(whole)}


@pytest.mark.parametrize(("batch", "jit"), [(57, True), (8, False), (1, False)])
def test_equals_scikit_learn_however_the_samples_are_batched(batch, jit):
    logits, labels, weights = samples(5)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted = logits.argmax(1)
    kept = weights > 0
    expected = {
        "loss": log_loss(labels, probabilities, sample_weight=weights),
        "accuracy": accuracy_score(labels, predicted, sample_weight=weights),
        "top_2_accuracy": top_k_accuracy_score(labels, logits, k=2, sample_weight=weights),
        "macro_recall": recall_score(labels[kept], predicted[kept], average="macro", sample_weight=weights[kept]),
        "macro_f1": f1_score(labels[kept], predicted[kept], average="macro", sample_weight=weights[kept]),
    }
    task = Classification(ClassificationTask(top_k=2), schema_of(5))
    assert measured(task, logits, labels, weights, batch, jit) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch", [57, 10])
def test_auc_of_two_classes_is_exact(batch):
    logits, labels, weights = samples(2)
    logits = np.round(logits)  # makes ties
    expected = roc_auc_score(labels, logits[:, 1] - logits[:, 0], sample_weight=weights)
    task = Classification(ClassificationTask(), schema_of(2))
    assert measured(task, logits, labels, weights, batch)["auc"] == pytest.approx(expected, abs=1e-12)


def test_one_of_several_classes_is_looked_for():
    logits, labels, weights = samples(4)
    odds = np.delete(logits, 2, 1)
    scores = logits[:, 2] - np.log(np.exp(odds).sum(1))
    kept = weights > 0
    found = measured(Classification(ClassificationTask(positive="2"), schema_of(4)), logits, labels, weights, 10)
    expected = [
        score(labels[kept] == 2, scores[kept], sample_weight=weights[kept])
        for score in (roc_auc_score, average_precision_score)
    ]
    assert [found["auc"], found["pr_auc"]] == pytest.approx(expected, abs=1e-12)


def test_pr_auc_goes_by_the_class_that_is_looked_for():
    logits, labels, weights = samples(2)
    labels[: len(labels) // 2] = 0
    first, second = (
        measured(Classification(ClassificationTask(positive=name), schema_of(2)), logits, labels, weights, 57)
        for name in ("0", None)
    )
    assert first["auc"] == pytest.approx(second["auc"]) and first["pr_auc"] > second["pr_auc"] + 0.1


def test_class_weights_are_weights_of_the_samples_in_the_loss_alone():
    logits, labels, weights = samples(3)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    of_class = np.array([1.0, 5.0, 0.5])
    weighted = Classification(ClassificationTask(class_weights={"1": 5.0, "2": 0.5}), schema_of(3))
    found = measured(weighted, logits, labels, weights, 8, jit=False)
    plain = measured(Classification(ClassificationTask(), schema_of(3)), logits, labels, weights, 8, jit=False)
    expected = log_loss(labels, probabilities, sample_weight=weights * of_class[labels])
    assert found.pop("loss") == pytest.approx(expected, rel=1e-5) != pytest.approx(plain.pop("loss"))
    assert found == plain


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_has_the_published_form_and_a_finite_gradient(gamma):
    logits, labels, _ = samples(3)
    logits[0], labels[0] = [50.0, 0.0, 0.0], 0  # a probability of exactly 1
    task = Classification(ClassificationTask(focal_gamma=gamma), schema_of(3))
    given = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(given)
        losses, _ = task.loss(given, {"label": tf.constant(labels)})
    p = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[np.arange(len(labels)), labels]
    np.testing.assert_allclose(losses, -((1 - p) ** gamma) * np.log(p), rtol=1e-4, atol=1e-6)
    assert np.isfinite(tape.gradient(losses, given)).all()


def test_label_smoothing_mixes_in_the_mean_over_all_classes():
    logits, labels, _ = samples(4)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -0.9 * log_probabilities[np.arange(len(labels)), labels] - 0.1 * log_probabilities.mean(1)
    losses, weights = Classification(ClassificationTask(label_smoothing=0.1), schema_of(4)).loss(
        tf.constant(logits), {"label": tf.constant(labels)}
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(weights, 1)


def test_loss_of_huge_logits_is_finite_with_a_finite_gradient():
    logits = tf.constant([[1e4, -1e4], [-1e4, 1e4]])
    batch = {"label": tf.constant([0, 0])}
    task = Classification(ClassificationTask(), schema_of(2))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses, _ = task.loss(logits, batch)
    np.testing.assert_allclose(losses, [0, 2e4])
    np.testing.assert_allclose(tf.convert_to_tensor(tape.gradient(losses, logits)), [[0, 0], [-1, 1]])


def test_an_empty_set_of_samples_has_no_metrics():
    task = Classification(ClassificationTask(), schema_of(3))
    assert all(np.isnan(value) for value in task.metrics({"classes": np.zeros(9)}).values())


def test_predictions_are_probabilities_and_classes():
    logits, *_ = samples(5)
    predictions = Classification(ClassificationTask(), schema_of(5)).predictions(tf.constant(logits))
    np.testing.assert_allclose(predictions["probabilities"].numpy().sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(predictions["classes"], logits.argmax(1))


def test_inputs_are_the_one_feature_or_all_by_name():
    one = Classification(ClassificationTask(), schema_of(2))
    x = tf.constant([1.0])
    assert one.inputs({"x": x, "label": tf.constant([0])}) is x
    features = {"x": Feature((), "float32"), "y": Feature((), "float32"), "label": Feature((), "int32")}
    several = Classification(ClassificationTask(), Schema(features, "label", 10, 2))
    batch = {name: tf.constant([0]) for name in [*features, "sample_weight"]}
    inputs = several.inputs(batch)
    assert isinstance(inputs, dict) and sorted(inputs) == ["x", "y"]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (Schema({"label": Feature((), "float32")}, "label", 1), "needs one class .* 'label' of shape \\[\\]"),
        (Schema({"x": Feature((), "float32")}, None, 1), "target is missing"),
        (Schema({"label": Feature((4,), "int32")}, "label", 1, 4), "of shape \\[4\\] and type int32 with 4 classes"),
    ],
)
def test_data_without_a_class_is_refused(schema, message):
    with pytest.raises(ValueError, match=message):
        build_task(ClassificationTask(), schema)


def test_top_k_of_too_few_classes_is_refused():
    with pytest.raises(ValueError, match=r"task\.top_k=5 must be below the number of classes, 5"):
        build_task(ClassificationTask(top_k=5), schema_of(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive": "fraud"}, "task.positive names the class 'fraud', which the data lacks: use one of 0, 1, 2"),
        ({"class_weights": {"late": 2.0}}, "task.class_weights names the class 'late'"),
        ({"target_precision": 0.9}, r"task\.target_precision=0\.9 .* set task\.positive to one of 0, 1, 2"),
    ],
)
def test_a_class_that_is_not_there_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_task(ClassificationTask(**options), schema_of(3))


def test_class_names_that_look_like_numbers_are_names():
    task = ClassificationTask.model_validate({"positive": 1, "class_weights": {0: 2}})
    assert (task.positive, task.class_weights) == ("1", {"0": 2.0})


def test_focal_loss_and_smoothing_are_refused_together():
    with pytest.raises(ValueError, match=r"task\.focal_gamma=2 .* task\.label_smoothing=0\.1 .* set one of them to 0"):
        ClassificationTask(focal_gamma=2, label_smoothing=0.1)
