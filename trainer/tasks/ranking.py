"""Metrics of an order of samples, which need all samples at once."""

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
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    kept = weights > 0
    scores, positive, weights = np.asarray(scores)[kept], np.asarray(positive, bool)[kept], weights[kept]
    if np.isnan(scores).any():
        return float("nan")
    _, group = np.unique(scores, return_inverse=True)
    num_groups = int(group.max(initial=-1)) + 1
    positives = np.bincount(group, weights * positive, num_groups)
    negatives = np.bincount(group, weights * ~positive, num_groups)
    total = positives.sum() * negatives.sum()
    if total == 0:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / total)
