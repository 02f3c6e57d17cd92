"""How much two versions differ on the same samples, and how sure that is.

The paired bootstrap: the samples are drawn again with replacement, many times, and the mean difference taken of each
draw (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

Shape legend: N samples, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ELEMENTS = 4_000_000  # of a block of draws


@dataclass(frozen=True)
class Difference:
    """The mean difference of two versions, with one-sided bounds.

    Attributes:
        mean: Above 0 where the candidate is better.
        lower: Below the true difference with the confidence that was asked for.
        upper: Above it with that confidence.
        num_samples: That both answered.
    """

    mean: float
    lower: float
    upper: float
    num_samples: int


def paired_difference(
    candidate: np.ndarray, current: np.ndarray, confidence: float, resamples: int, seed: int = 0
) -> Difference:
    """The difference of the means of two scores [N] of the same samples; the same arguments give the same bounds.

    >>> scores = np.array([0.0, 1.0] * 50)
    >>> paired_difference(scores + 0.5, scores, 0.95, 1000)
    Difference(mean=0.5, lower=0.5, upper=0.5, num_samples=100)
    """
    differences = candidate.astype(np.float64) - current.astype(np.float64)
    count = len(differences)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, block := max(1, _ELEMENTS // count)):
        draws = rng.integers(0, count, (min(block, resamples - start), count))
        means.append(differences[draws].mean(1))
    lower, upper = np.quantile(np.concatenate(means), [1 - confidence, confidence])
    return Difference(float(differences.mean()), float(lower), float(upper), count)
