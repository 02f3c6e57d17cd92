"""How far a window of live values is from the training sample: PSI and KS, with the noise of small samples known.

Shape legend: M training values, W live values, K bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

NUM_BINS = 10
MOST_NAMES = 30
OTHER = "(other)"

PSI_LIMIT = 0.1
"""Below it a population counts as stable (Siddiqi, "Credit risk scorecards", 2006), however sure the shift is."""

KS_LIMIT = 0.1
"""The largest distance between the two distribution functions that is too small to matter."""


@dataclass(frozen=True)
class Score:
    """One column compared.

    Attributes:
        psi: Population stability index.
        psi_limit: Above it the index is an alarm: what matters, and more than chance explains.
        ks: Largest distance between the distribution functions; None for names.
        ks_p: Probability of such a distance by chance.
        alarm: Whether the column has drifted.
    """

    psi: float
    psi_limit: float
    ks: float | None
    ks_p: float | None
    alarm: bool


class ColumnReference:
    """The training values of one column, prepared for comparisons.

    Args:
        values: [M], float64 or text; NaN counts as a value of its own.

    Attributes:
        is_number: Whether it holds numbers.
        labels: Of the bins, K of them.
        shares: Of the training values in each bin, float64 [K].
    """

    def __init__(self, values: np.ndarray) -> None:
        self.num_values = len(values)
        self.is_number = values.dtype.kind == "f"
        if self.is_number:
            finite = np.sort(values[np.isfinite(values)])
            self.sorted = finite
            inner = np.quantile(finite, np.linspace(0, 1, NUM_BINS + 1)[1:-1]) if finite.size else np.zeros(0)
            self._edges = np.unique(inner)
            bounds = [f"{edge:.4g}" for edge in self._edges]
            self.labels = [f"to {bounds[0]}" if bounds else "all"]
            self.labels += [f"{low} to {high}" for low, high in pairwise(bounds)]
            self.labels += [f"from {bounds[-1]}"] if bounds else []
            self.labels.append("missing")
        else:
            names, counts = np.unique(values.astype(str), return_counts=True)
            kept = [str(name) for name in names[np.argsort(-counts, kind="stable")][:MOST_NAMES]]
            self._numbers = {name: index for index, name in enumerate(kept)}
            self.labels = [*kept, OTHER]
            self.sorted = np.zeros(0)
        self.shares = self.counts(values) / max(self.num_values, 1)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """What a window keeps of live values, float64 [B]: numbers as they are, names as the numbers of their bins."""
        if self.is_number:
            return np.asarray(values, np.float64)
        other = len(self._numbers)
        return np.array([self._numbers.get(str(name), other) for name in values], np.float64)

    def counts(self, values: np.ndarray) -> np.ndarray:
        """Values in each bin, [K], of raw values."""
        return self.counts_of_encoded(self.encode(values))

    def counts_of_encoded(self, encoded: np.ndarray) -> np.ndarray:
        """Values in each bin, [K], of encoded ones."""
        if not self.is_number:
            return np.bincount(encoded.astype(np.int64), minlength=len(self.labels)).astype(np.float64)
        missing = ~np.isfinite(encoded)
        # A value on an edge belongs to the bin below, as the quantile that it is.
        bins = np.searchsorted(self._edges, encoded, side="left")
        bins[missing] = len(self.labels) - 1
        return np.bincount(bins, minlength=len(self.labels)).astype(np.float64)

    def rank(self, encoded: np.ndarray) -> np.ndarray:
        """Where each value lies among the training values, in [0, 1]; uniform while nothing has changed."""
        if not self.is_number:
            return encoded / max(len(self.labels) - 1, 1)
        if not self.sorted.size:
            return np.full(len(encoded), 0.5)
        places = np.searchsorted(self.sorted, encoded, "left") + np.searchsorted(self.sorted, encoded, "right")
        return places / (2 * self.sorted.size)


def score(reference: ColumnReference, encoded: np.ndarray, chance: float) -> Score:
    """Compares live values with the training ones.

    A drift has to be large enough to matter and surer than chance. Under no drift PSI is distributed as
    (1/M + 1/W) times chi-squared with K - 1 degrees of freedom (Yurdakul and Naranjo, "Statistical properties of the
    population stability index", 2020).

    Args:
        reference: Of the column.
        encoded: Live values, [W], W at least 1.
        chance: Probability of an alarm without a drift that is accepted for each test.
    """
    num_live = len(encoded)
    counts = reference.counts_of_encoded(encoded)
    psi, num_bins = psi_of(reference.shares * reference.num_values, counts)
    noise = (1 / reference.num_values + 1 / num_live) * float(stats.chi2.isf(chance, max(num_bins - 1, 1)))
    psi_limit = max(PSI_LIMIT, noise)
    ks = ks_p = None
    if reference.is_number and reference.sorted.size:
        finite = encoded[np.isfinite(encoded)]
        if finite.size:
            result = stats.ks_2samp(reference.sorted, finite, method="asymp")
            ks, ks_p = float(result.statistic), float(result.pvalue)  # type: ignore[attr-defined]
    alarm = psi > psi_limit or (ks is not None and ks_p is not None and ks > KS_LIMIT and ks_p < chance)
    return Score(psi, psi_limit, ks, ks_p, alarm)


def psi_of(expected: np.ndarray, found: np.ndarray) -> tuple[float, int]:
    """The population stability index of two vectors of counts [K], and how many bins are not empty in both.

    Half a value is added to each bin, so that an empty one costs much and not infinitely much.

    >>> psi_of(np.array([50.0, 50.0]), np.array([50.0, 50.0]))
    (0.0, 2)
    """
    used = (expected > 0) | (found > 0)
    expected, found = expected[used] + 0.5, found[used] + 0.5
    p, q = expected / expected.sum(), found / found.sum()
    return float(np.sum((q - p) * np.log(q / p))), int(used.sum())
