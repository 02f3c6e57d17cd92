import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.report.axis import Scale, duration_ticks, scale_for, smoothed, thinned, tick_texts


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_lie_on_the_axis_and_read_differently(low: float, length: float):
    scale = Scale(low, low + max(length, abs(low) * 1e-3))
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(-1e-6 <= scale.place(tick) <= 1 + 1e-6 for tick in ticks)
    texts = tick_texts(ticks)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(("low", "high"), [(0.02, 3.1), (1e-9, 1e3), (0.4, 0.7), (5.0, 5000.0)])
def test_logarithmic_ticks_are_few_and_inside(low: float, high: float):
    ticks = Scale(low, high, logarithmic=True).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)


def test_places_are_even_or_by_orders_of_magnitude():
    assert Scale(10, 20).place(15) == 0.5
    assert Scale(0.01, 1, logarithmic=True).place(0.1) == pytest.approx(0.5)


def test_a_loss_that_falls_far_gets_a_logarithmic_axis_and_one_with_zeros_never():
    assert scale_for([2.3, 0.01], orders=1.3).logarithmic
    assert not scale_for([2.3, 1.0], orders=1.3).logarithmic
    assert not scale_for([2.3, 0.0], orders=1.3).logarithmic


@pytest.mark.parametrize("values", [[], [0.0], [5.0, 5.0], [-1.0]])
def test_any_values_give_an_axis_with_some_length(values: list[float]):
    scale = scale_for(values)
    assert scale.high > scale.low


def test_clock_ticks():
    assert tick_texts(duration_ticks(2400), "s") == ["0s", "10m", "20m", "30m", "40m"]
    assert tick_texts(duration_ticks(100), "s") == ["0s", "30s", "1m", "1m30s"]
    assert duration_ticks(0.5)[:2] == [0.0, 0.1]


def test_thinning_keeps_order_extremes_and_gaps():
    points = [(float(step), math.sin(step / 500)) for step in range(50_000)]
    points[12_345] = (12_345.0, 99.0)
    points[23_456] = (23_456.0, -99.0)
    points[34_567] = (34_567.0, math.nan)
    thin = thinned(points, 1000)
    assert len(thin) <= 1002
    assert {(12_345.0, 99.0), (23_456.0, -99.0)} <= set(thin)
    assert [x for x, y in thin if math.isnan(y)] == [34_567.0]
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)
    assert thinned(points[:10], 1000) == points[:10]


def test_smoothing_is_unbiased_at_the_start_and_skips_nan():
    constant = smoothed([(0, 3.0), (1, math.nan), (2, 3.0), (3, 3.0)], window=5)
    assert [x for x, _ in constant] == [0, 2, 3]
    assert [y for _, y in constant] == pytest.approx([3.0, 3.0, 3.0])
    noisy = [(float(i), float(i % 2)) for i in range(1000)]
    assert all(abs(y - 0.5) < 0.05 for _, y in smoothed(noisy, window=50)[100:])
