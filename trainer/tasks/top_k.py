"""How good the best k of all items are, for each of many people.

Shape legend: P people, I items, R people at a time, K length of the longest list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_MOST_SCORES = 2**24  # held at a time


class Interactions(NamedTuple):
    """Pairs of a person's and an item's number, int [pairs, 2] each.

    Attributes:
        to_find: What a list should hold.
        seen: What it must not hold, because the person knows it already.
    """

    to_find: np.ndarray
    seen: np.ndarray


def top_k_metrics(
    scores_of: Callable[[np.ndarray], np.ndarray], interactions: Interactions, is_item: np.ndarray, ks: Sequence[int]
) -> dict[str, float]:
    """Recall and NDCG of the best k items, exact over all items, averaged over the people with something to find.

    Recall is the share of somebody's items that the list holds; NDCG (Jarvelin, Kekalainen, "Cumulated gain-based
    evaluation of IR techniques", 2002) also counts how far up, as a share of the best list there is.

    Args:
        scores_of: From the numbers of people [R] to the scores of all items for them, [R, I].
        interactions: Of all people.
        is_item: Which of the items may be in a list at all, bool [I].
        ks: Lengths of lists.

    Returns:
        `recall_k` and `ndcg_k` for each k, in [0, 1]; NaN where nobody has anything to find, or a score is NaN. Of
        equal scores the item with the lower number comes first.
    """
    num_items, longest = len(is_item), min(max(ks), len(is_item))
    people = np.unique(interactions.to_find[:, 0])
    sums = {f"{metric}_{k}": 0.0 for k in ks for metric in ("recall", "ndcg")}
    size = max(1, _MOST_SCORES // num_items)
    for start in range(0, len(people), size):
        part = people[start : start + size]
        scores = np.array(scores_of(part), np.float64)
        wanted = _marked(interactions.to_find, part, num_items)
        left_out = (_marked(interactions.seen, part, num_items) & ~wanted) | ~is_item
        is_known = ~np.isnan(scores).any(-1)
        scores[left_out] = -np.inf
        best = np.argsort(-scores, axis=-1, kind="stable")[:, :longest]
        hits = np.take_along_axis(wanted & ~left_out, best, -1).astype(np.float64)
        hits[~is_known] = np.nan
        counts = wanted.sum(-1)
        discount = 1.0 / np.log2(np.arange(longest) + 2.0)
        ideal = np.cumsum(discount)
        for k in ks:
            gain = (hits[:, :k] * discount[:k]).sum(-1)
            sums[f"recall_{k}"] += float((hits[:, :k].sum(-1) / counts).sum())
            sums[f"ndcg_{k}"] += float((gain / ideal[np.minimum(counts, min(k, longest)) - 1]).sum())
    return {name: value / len(people) if len(people) else float("nan") for name, value in sums.items()}


def _marked(pairs: np.ndarray, people: np.ndarray, num_items: int) -> np.ndarray:
    """Which items are paired with these people, given in rising order; bool [R, I]."""
    place = np.searchsorted(people, pairs[:, 0])
    is_there = people[np.minimum(place, len(people) - 1)] == pairs[:, 0]
    marked = np.zeros((len(people), num_items), bool)
    marked[place[is_there], pairs[is_there, 1]] = True
    return marked
