"""How well the nearness of two samples says whether they are of the same class.

Shape legend: N samples, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.tasks.ranking import roc_auc

MOST_SAMPLES = 2048
"""Whose pairs are all compared, 2.1 million."""
_ROWS = 1024  # whose scores with all samples are held at a time


def pair_metrics(vectors: np.ndarray, labels: np.ndarray, false_accepts: Sequence[float]) -> dict[str, float]:
    """Metrics of verification, whatever the order of the samples.

    Args:
        vectors: Unit vectors, [N, D].
        labels: Classes, int [N].
        false_accepts: Shares of pairs of different classes that may be accepted.

    Returns:
        `auc`, of all pairs; for each share F `tar_at_far_F`, the share of the pairs of one class that a threshold
        accepts which accepts at most that share of the others, and `threshold_at_far_F`, that cosine; `recall_1`: how
        often the nearest other sample is of the same class, among the samples that have one. The pairs are those of at
        most `MOST_SAMPLES` samples, taken evenly from all classes. NaN where there is no pair of a kind.
    """
    order = np.lexsort((*vectors.T[:4], labels))
    vectors, labels = np.asarray(vectors[order], np.float32), labels[order]
    step = max(1, -(-len(labels) // MOST_SAMPLES))
    scores, is_same = _pairs(vectors[::step], labels[::step])
    metrics = {"auc": roc_auc(scores, is_same)}
    right, wrong = scores[is_same], np.sort(scores[~is_same])[::-1]
    for share in false_accepts:
        threshold = float(wrong[int(share * len(wrong))]) if len(wrong) else float("nan")
        accepted = float((right > threshold).mean()) if len(right) and len(wrong) else float("nan")
        metrics |= {f"tar_at_far_{share:g}": accepted, f"threshold_at_far_{share:g}": threshold}
    return {**metrics, "recall_1": _nearest_is_right(vectors, labels)}


def _pairs(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cosine of each pair, and whether it is of one class."""
    is_pair = np.triu(np.ones((len(labels), len(labels)), bool), 1)
    return (vectors @ vectors.T)[is_pair], (labels[:, None] == labels[None, :])[is_pair]


def _nearest_is_right(vectors: np.ndarray, labels: np.ndarray) -> float:
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    has_other = counts[place] > 1
    hits = np.zeros(len(labels), bool)
    for start in range(0, len(labels), _ROWS):
        scores = vectors[start : start + _ROWS] @ vectors.T
        rows = np.arange(len(scores))
        scores[rows, start + rows] = -np.inf
        hits[start : start + _ROWS] = labels[scores.argmax(-1)] == labels[start : start + _ROWS]
    return float(hits[has_other].mean()) if has_other.any() else float("nan")
