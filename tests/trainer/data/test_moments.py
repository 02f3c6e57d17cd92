import numpy as np
import pytest

from trainer.data import moments
from trainer.data.moments import Moments


def of_pieces(values: np.ndarray, cuts: list[int]) -> tuple[float, float]:
    found = Moments()
    for piece in np.split(values, cuts):
        found.add(piece)
    return found.mean_and_deviation()


def test_no_bit_depends_on_how_the_numbers_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "BLOCK", 64)
    values = np.random.default_rng(0).normal(1e6, 3, 1000)
    whole = of_pieces(values, [])
    assert whole == of_pieces(values, [1, 2, 64, 65, 500]) == of_pieces(values, list(range(1000)))
    assert whole == pytest.approx((values.mean(), values.std()), rel=1e-12)


def test_few_numbers_have_what_numpy_finds_to_the_bit() -> None:
    values = np.random.default_rng(1).normal(5, 2, 999)
    spoilt = np.insert(values, [3, 500], [np.nan, np.inf])
    assert of_pieces(spoilt, [400]) == (values.mean(), values.std())


def test_nothing_and_what_does_not_vary_have_a_deviation_of_one() -> None:
    assert of_pieces(np.empty(0), []) == (0.0, 1.0)
    assert of_pieces(np.full(7, 0.1), [3]) == (pytest.approx(0.1), 1.0)
