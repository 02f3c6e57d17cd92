import numpy as np
import pytest

from trainer.inspection.sketches import Fingerprints, Moments, Reservoir, ValueCounts


def test_moments_in_parts_are_those_of_the_whole_far_from_zero():
    values = np.random.default_rng(0).normal(1e9, 2.0, 10_000)
    moments = Moments()
    for part in np.array_split(values, [3, 4, 4000]):
        moments.add(part)
    assert (moments.count, moments.low, moments.high) == (10_000, values.min(), values.max())
    assert moments.mean == pytest.approx(values.mean(), rel=1e-15)
    assert moments.std == pytest.approx(values.std(), rel=1e-6)


def test_moments_count_what_is_not_finite_and_leave_it_out():
    moments = Moments()
    moments.add(np.array([np.nan, 1.0, np.inf, 3.0]))
    moments.add(np.array([np.nan]))
    assert (moments.count, moments.not_finite, moments.mean, moments.std) == (2, 3, 2.0, 1.0)


def test_counts_are_exact_up_to_their_bound_and_say_when_they_are_not():
    counts = ValueCounts(most=3)
    counts.add(np.array([5, 5, 7, 5]))
    counts.add(np.array([7, 9]))
    assert counts.is_exact and counts.most_frequent(2) == [(5, 3), (7, 2)]
    counts.add(np.array([9, 11, 12, 11]))
    assert not counts.is_exact and counts.others == 3
    assert counts.counts == {5: 3, 7: 2, 9: 2}


def test_a_reservoir_keeps_all_of_few_values_and_an_even_draw_of_many():
    few = Reservoir(most=100)
    few.add(np.array([3.0, np.nan, 1.0]))
    assert few.values.tolist() == [1, 3]
    many, again = Reservoir(most=2000), Reservoir(most=2000)
    for part in np.array_split(np.arange(100_000.0), 37):
        many.add(part)
        again.add(part)
    assert len(many.values) == 2000 and (many.values == again.values).all()
    # Of an even draw the share below each tenth has a deviation of at most 1.2 %.
    shares = [(many.values < 10_000 * i).mean() for i in range(1, 10)]
    assert shares == pytest.approx([i / 10 for i in range(1, 10)], abs=0.05)


def test_equal_samples_are_found_across_batches_with_the_first_of_them():
    prints = Fingerprints()
    prints.add({"x": np.array([[1, 2], [3, 4]]), "y": np.array([0, 1])}, np.array([10, 20]))
    prints.add({"y": np.array([1, 0, 1]), "x": np.array([[3, 4], [1, 3], [3, 4]])}, np.array([30, 40, 50]))
    assert prints.duplicates() == [(30, 20), (50, 20)]
    assert Fingerprints().duplicates() == []


def test_texts_do_not_run_into_each_other():
    prints = Fingerprints()
    a, b = np.array([b"ab", b"a", b"ab"], object), np.array([b"c", b"bc", b"c"], object)
    prints.add({"a": a, "b": b}, np.arange(3))
    assert prints.duplicates() == [(2, 0)]
