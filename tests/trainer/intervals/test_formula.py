"""The formula minimises what it claims to minimise, and the bounds hold."""

import math
import random

import pytest

from trainer.intervals.formula import Limits, best_interval, daly_interval

ANY_LENGTH = Limits(most_s=math.inf, most_share=None)


def time_for(work_s: float, interval_s: float, cost_s: float, mtbf_s: float, seed: int) -> float:
    """Seconds that some work takes with saves at an interval, and failures that take back what was not saved."""
    draw = random.Random(seed)
    now = done = 0.0
    fails_at = draw.expovariate(1 / mtbf_s)
    while done < work_s:
        now += interval_s + cost_s
        if now > fails_at:
            now, fails_at = fails_at, fails_at + draw.expovariate(1 / mtbf_s)
        else:
            done += interval_s
    return now


@pytest.mark.parametrize(("cost_s", "mtbf_s"), [(2.0, 2_000.0), (20.0, 200.0)])
def test_no_other_interval_costs_less(cost_s: float, mtbf_s: float) -> None:
    best = daly_interval(cost_s, mtbf_s)
    work_s = 2_000 * mtbf_s
    times = {factor: time_for(work_s, factor * best, cost_s, mtbf_s, seed=1) for factor in (0.4, 1.0, 2.5)}
    assert times[1.0] < times[0.4] and times[1.0] < times[2.5]


def test_it_is_youngs_where_a_save_costs_little() -> None:
    assert daly_interval(1e-3, 1e6) == pytest.approx(math.sqrt(2 * 1e-3 * 1e6), rel=1e-3)


def test_more_failures_and_cheaper_saves_make_it_shorter() -> None:
    intervals = [daly_interval(cost_s, mtbf_s) for cost_s, mtbf_s in ((1, 1e5), (1, 1e4), (0.1, 1e4))]
    assert intervals == sorted(intervals, reverse=True)


@pytest.mark.parametrize(
    ("cost_s", "mtbf_s", "write_s", "seconds", "reason"),
    [
        (0.002, 3.6e6, 0.01, 5.0, "patience"),  # 120 s would cost least
        (0.002, 3_600.0, 0.01, pytest.approx(3.8, abs=0.1), "failures"),
        (0.2, 3_600.0, 0.5, 20.0, "overhead"),  # the share that saves may cost counts more than patience
        (0.002, 60.0, 0.01, pytest.approx(0.49, abs=0.01), "failures"),
        (0.002, 60.0, 4.0, 8.0, "writing"),
    ],
)
def test_bounds(cost_s: float, mtbf_s: float, write_s: float, seconds: float, reason: str) -> None:
    limits = Limits(most_s=5.0, most_share=0.01)
    found = best_interval(cost_s, mtbf_s, limits, write_s=write_s, step_s=0.001)
    assert (found.seconds, found.reason) == (seconds, reason)
    assert cost_s / found.seconds <= 0.01


def test_what_costs_less_than_a_hundredth_of_a_step_is_saved_after_every_step() -> None:
    limits = Limits(most_s=5.0, most_share=0.005, is_free_possible=True)
    assert best_interval(0.009, 3.6e6, limits, write_s=0.4, step_s=1.0).reason == "free"
    assert best_interval(0.011, 3.6e6, limits, write_s=0.4, step_s=1.0).reason == "patience"
    assert best_interval(0.009, 3.6e6, limits, write_s=0.6, step_s=1.0).reason == "patience"
    assert best_interval(0.009, 3.6e6, ANY_LENGTH, write_s=0.4, step_s=1.0).reason == "failures"
