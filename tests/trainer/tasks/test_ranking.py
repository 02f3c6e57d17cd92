import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from trainer.tasks.ranking import pr_auc, roc_auc, threshold_of_precision

sample = st.tuples(st.integers(-3, 3), st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 3.0]))


@given(st.lists(sample, min_size=1, max_size=30))
def test_auc_is_the_share_of_pairs_in_the_right_order(samples):
    scores, positive, weights = (np.array(column) for column in zip(*samples, strict=True))
    right = pairs = 0.0
    for score_a, is_a, weight_a in samples:
        for score_b, is_b, weight_b in samples:
            if is_a and not is_b:
                pairs += weight_a * weight_b
                right += weight_a * weight_b * (1.0 if score_a > score_b else 0.5 if score_a == score_b else 0.0)
    auc = roc_auc(scores.astype("float32"), positive, weights)
    assert math.isnan(auc) if pairs == 0 else math.isclose(auc, right / pairs, abs_tol=1e-12)


def test_auc_of_nan_scores_is_nan():
    assert math.isnan(roc_auc(np.array([np.nan, 1.0]), np.array([True, False])))


@given(st.lists(sample, min_size=1, max_size=30))
def test_pr_auc_is_the_average_precision(samples):
    scores, positive, weights = (np.array(column) for column in zip(*samples, strict=True))
    found = pr_auc(scores.astype("float32"), positive, weights)
    if not (weights * positive).sum():
        assert math.isnan(found)
    else:
        kept = weights > 0
        expected = average_precision_score(positive[kept], scores[kept], sample_weight=weights[kept])
        assert math.isclose(found, expected, abs_tol=1e-12)


@given(st.lists(sample, min_size=1, max_size=30), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_the_threshold_is_the_lowest_of_its_precision(samples, target):
    scores, positive, weights = (np.array(column) for column in zip(*samples, strict=True))

    def reaches(threshold: float) -> bool:
        called = weights * (scores >= threshold)
        return (called * positive).sum() >= target * called.sum() > 0

    found = threshold_of_precision(scores, positive, target, weights)
    possible = [score for score, weight in zip(scores, weights, strict=True) if weight and reaches(score)]
    if not possible:
        assert math.isnan(found)
    else:
        assert reaches(found)
        assert np.array_equal((scores >= found) & (weights > 0), (scores >= min(possible)) & (weights > 0))


def test_nan_scores_have_no_area_and_no_threshold():
    scores, positive = np.array([np.nan, 1.0]), np.array([True, False])
    assert math.isnan(pr_auc(scores, positive)) and math.isnan(threshold_of_precision(scores, positive, 0.1))
