import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.tasks.ranking import roc_auc

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
