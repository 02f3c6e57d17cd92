from pathlib import Path

from delivery.shrink.artefact import Artefact
from delivery.shrink.request import Ties
from delivery.shrink.search import RATES, best_of, search


def _make(highest: float, tried: list[float]):
    def make(rate: float) -> list[Artefact]:
        tried.append(rate)
        size = round(1e6 * (1 - rate))
        return [Artefact(f"{rate}", "int8", rate, size, size=size, refused=None if rate <= highest else "worse",
                         path=Path("x"))]  # fmt: skip

    return make


def test_the_highest_rate_that_passes_is_found_with_few_trials():
    for highest in RATES:
        tried: list[float] = []
        made = search(_make(highest, tried), lambda rate: 10**6, None, ["int8"])
        best = best_of(made, None)
        assert best is not None and best.prune == highest and len(tried) <= 4


def test_rates_that_cannot_fit_are_not_tried_and_nothing_too_large_is_chosen():
    tried: list[float] = []
    made = search(_make(0.99, tried), lambda rate: round(1e6 * (1 - rate)), 100_000, ["int8"])
    assert min(tried) >= 0.9
    assert best_of(made, 5_000) is None


def test_with_ties_the_compressed_file_counts():
    small = [
        Artefact("a", "int8", 0.0, 10, size=500, compressed_size=490, path=Path("x")),
        Artefact("b", "float32", 0.0, 10, size=2000, compressed_size=300, path=Path("x"), ties="8values"),
    ]
    chosen = [best_of(small, 600, compressed) for compressed in (False, True)]
    assert [one.name for one in chosen if one] == ["a", "b"]
    made = search(lambda rate: small, lambda rate: 1000, 400, ["float32"], rates=(0.0,), ties=Ties(8))
    assert made == small and not search(lambda rate: small, lambda rate: 1000, 400, ["float32"], rates=(0.0,))
