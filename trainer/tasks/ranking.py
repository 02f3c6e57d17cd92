"""Metrics of an order of samples, which need all samples at once.

Shape legend: N samples, G groups of samples with one score.
"""

from __future__ import annotations

import numpy as np


def roc_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The exact area under the ROC curve: how likely a positive sample scores above a negative one, ties counting half.

    The Mann-Whitney statistic (Hanley, McNeil, "The meaning and use of the area under a ROC curve", 1982), weighted.

    Args:
        scores: [N].
        positive: bool [N].
        weights: [N], not negative; ones by default.

    Returns:
        The area in [0, 1]; NaN where all samples with weight are of one kind or a score is NaN.
    """
    _, positives, negatives = _groups(scores, positive, weights)
    total = positives.sum() * negatives.sum()
    if not total > 0:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / total)


def pr_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The exact area under the steps of the precision-recall curve, also called average precision.

    Nothing is drawn between two points of the curve: straight lines there would promise what no threshold gives
    (Davis, Goadrich, "The relationship between precision-recall and ROC curves", 2006).

    Args:
        scores: [N].
        positive: bool [N].
        weights: [N], not negative; ones by default.

    Returns:
        The area in [0, 1]; NaN where no sample with weight is positive or a score is NaN.
    """
    _, positives, negatives = _groups(scores, positive, weights)
    if not positives.sum() > 0:
        return float("nan")
    found, precision = _from_the_top(positives, negatives)
    return float((positives[::-1] * precision).sum() / found[-1])


def threshold_of_precision(
    scores: np.ndarray, positive: np.ndarray, target: float, weights: np.ndarray | None = None
) -> float:
    """The lowest threshold at which at least `target` of the samples from it on are positive: it finds the most.

    Args:
        scores: [N].
        positive: bool [N].
        target: In (0, 1].
        weights: [N], not negative; ones by default.

    Returns:
        Half way between the lowest score that counts as positive and the next one below it; NaN where no threshold
        reaches the target.
    """
    values, positives, negatives = _groups(scores, positive, weights)
    _, precision = _from_the_top(positives, negatives)
    reached = np.flatnonzero(precision >= target)
    if not len(reached):
        return float("nan")
    lowest = len(values) - 1 - reached[-1]
    return float(values[lowest] if lowest == 0 else (values[lowest] + values[lowest - 1]) / 2)


def _groups(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different scores in rising order, and the weights of positive and negative samples of each, float64 [G].

    The weights are NaN where a score is.
    """
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    kept = weights > 0
    scores, positive, weights = np.asarray(scores)[kept], np.asarray(positive, bool)[kept], weights[kept]
    values, group = np.unique(scores.astype(np.float64), return_inverse=True)
    if np.isnan(values).any():
        weights = weights * np.nan
    return (
        values,
        np.bincount(group, np.where(positive, weights, 0.0 * weights), len(values)),
        np.bincount(group, np.where(positive, 0.0 * weights, weights), len(values)),
    )


def _from_the_top(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive samples among those from each score on, and their share, highest score first; float64 [G] each."""
    found = np.cumsum(positives[::-1])
    return found, found / np.cumsum((positives + negatives)[::-1])
