import numpy as np
import pytest

from trainer.tasks.pairs import MOST_SAMPLES, pair_metrics


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype("float32")


def test_metrics_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    vectors = unit(rng.normal(size=(40, 6)) + 0.8 * np.eye(6)[labels])
    right, wrong, hits = [], [], []
    for i in range(40):
        scores = {j: vectors[i] @ vectors[j] for j in range(40) if j != i}
        hits.append(labels[max(scores, key=lambda j: scores[j])] == labels[i])
        for j in range(i):
            (right if labels[i] == labels[j] else wrong).append(scores[j])
    found = pair_metrics(vectors, labels, (0.1,))
    order = [np.sign(r - w) / 2 + 0.5 for r in right for w in wrong]
    assert found["auc"] == pytest.approx(np.mean(order), abs=1e-6)
    assert found["recall_1"] == pytest.approx(np.mean(hits))
    threshold = found["threshold_at_far_0.1"]
    assert np.mean(np.array(wrong) > threshold) <= 0.1 < np.mean(np.array(wrong) >= threshold) + 1 / len(wrong)
    assert found["tar_at_far_0.1"] == pytest.approx(np.mean(np.array(right) > threshold))


def test_the_order_of_the_samples_changes_nothing():
    rng = np.random.default_rng(1)
    vectors, labels = unit(rng.normal(size=(3 * MOST_SAMPLES // 2, 5))), rng.integers(0, 9, 3 * MOST_SAMPLES // 2)
    order = rng.permutation(len(labels))
    assert pair_metrics(vectors, labels, (0.01,)) == pair_metrics(vectors[order], labels[order], (0.01,))


def test_classes_of_one_sample_have_no_nearest_one():
    vectors = unit(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
    assert pair_metrics(vectors, np.array([4, 4, 7]), (0.01,))["recall_1"] == 1.0
    alone = pair_metrics(vectors, np.array([1, 2, 3]), (0.01,))
    assert np.isnan(alone["recall_1"]) and np.isnan(alone["tar_at_far_0.01"]) and np.isnan(alone["auc"])
