import math

import numpy as np
import pytest

from trainer.tasks import top_k
from trainer.tasks.top_k import Interactions, top_k_metrics


def by_hand(scores: np.ndarray, to_find, seen, items, k: int) -> tuple[float, float]:
    recalls, gains = [], []
    for person in sorted({int(pair[0]) for pair in to_find}):
        wanted = {int(item) for one, item in to_find if one == person}
        known = {int(item) for one, item in seen if one == person} - wanted
        allowed = [item for item in range(scores.shape[1]) if items[item] and item not in known]
        best = sorted(allowed, key=lambda item: (-scores[person, item], item))[:k]
        recalls.append(len(wanted & set(best)) / len(wanted))
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(best) if item in wanted)
        gains.append(gain / sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted)))))
    return float(np.mean(recalls)), float(np.mean(gains))


@pytest.mark.parametrize("most_scores", [10, 10**6], ids=["one person at a time", "all at once"])
def test_recall_and_ndcg_are_exact(most_scores, monkeypatch):
    monkeypatch.setattr(top_k, "_MOST_SCORES", most_scores)
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(12, 30)), 1)  # makes ties
    pairs = np.argwhere(rng.random((12, 30)) < 0.3)
    is_wanted = (rng.random(len(pairs)) < 0.4) & (pairs[:, 0] != 5)  # nothing to find for one person
    items = np.arange(30) != 7
    is_wanted &= pairs[:, 1] != 7
    interactions = Interactions(pairs[is_wanted], pairs[~is_wanted])
    found = top_k_metrics(lambda people: scores[people], interactions, items, (1, 5, 40))
    for k in (1, 5, 40):
        recall, gain = by_hand(scores, *interactions, items, k)
        assert (found[f"recall_{k}"], found[f"ndcg_{k}"]) == (pytest.approx(recall), pytest.approx(gain))
    assert found["recall_40"] == 1.0


def test_nan_scores_have_no_recall():
    pairs = np.array([[0, 1], [1, 0]])
    found = top_k_metrics(lambda people: np.array([[np.nan, 1.0], [2.0, 1.0]])[people], Interactions(pairs, pairs[:0]),
                          np.ones(2, bool), (1,))  # fmt: skip
    assert math.isnan(found["recall_1"]) and math.isnan(found["ndcg_1"])
