import numpy as np
import pytest
from scipy import stats

from delivery.release.bootstrap import paired_difference


def test_the_bounds_are_those_of_the_normal_distribution_where_it_holds():
    rng = np.random.default_rng(0)
    current = rng.normal(size=2000)
    candidate = current + rng.normal(0.1, 0.5, 2000)
    found = paired_difference(candidate, current, 0.95, 4000)
    differences = candidate - current
    reach = stats.norm.ppf(0.95) * differences.std(ddof=1) / np.sqrt(2000)
    assert found.mean == pytest.approx(differences.mean())
    assert found.lower == pytest.approx(differences.mean() - reach, abs=0.1 * reach)
    assert found.upper == pytest.approx(differences.mean() + reach, abs=0.1 * reach)


def test_pairs_count_not_spreads():
    """Versions that are wrong on the same samples differ little, however hard the samples are."""
    current = np.random.default_rng(1).integers(0, 2, 500).astype(float)
    candidate = current.copy()
    candidate[0] = 1 - candidate[0]
    paired = paired_difference(candidate, current, 0.95, 2000)
    shuffled = paired_difference(np.random.default_rng(2).permutation(candidate), current, 0.95, 2000)
    assert paired.upper - paired.lower < 0.2 * (shuffled.upper - shuffled.lower)


def test_the_lower_bound_misses_as_seldom_as_it_says():
    rng = np.random.default_rng(3)
    misses = 0
    for trial in range(200):
        candidate = (rng.random(200) < 0.85).astype(float)
        current = (rng.random(200) < 0.85).astype(float)
        misses += paired_difference(candidate, current, 0.95, 300, seed=trial).lower > 0
    assert stats.binomtest(misses, 200, 0.05).pvalue > 0.001


def test_the_same_scores_give_the_same_bounds():
    a, b = np.random.default_rng(4).random((2, 100))
    assert paired_difference(a, b, 0.9, 500) == paired_difference(a, b, 0.9, 500)
