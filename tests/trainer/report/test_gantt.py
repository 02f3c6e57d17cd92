import numpy as np
import pytest

from trainer.report.gantt import coverage, draw, folded_time


def _span(name: str, start: float, duration: float, **more: float) -> dict:
    return {"name": name, "start": start, "duration": duration, **more}


def test_coverage_is_the_share_of_each_column():
    spans = [_span("step", 0, 4), _span("step", 6, 1), _span("step", 9.5, 0.5)]
    time = folded_time(spans)
    assert coverage(spans, time, 5) == pytest.approx([1, 1, 0, 0.5, 0.25])


def test_coverage_keeps_the_total_time_of_thousands_of_spans():
    rng = np.random.default_rng(0)
    spans = [_span("step", index * 0.01, float(rng.uniform(0.001, 0.009))) for index in range(20_000)]
    time = folded_time(spans)
    total = coverage(spans, time, 900).sum() * time.length / 900
    assert total == pytest.approx(sum(span["duration"] for span in spans), rel=1e-6)


def test_a_bundle_is_spread_over_the_time_between_its_ends():
    spans = [_span("step", 0, 2.0, end=8.0, count=100), _span("evaluate", 8.0, 2.0)]
    assert coverage(spans[:1], folded_time(spans), 5) == pytest.approx([0.25, 0.25, 0.25, 0.25, 0])


def test_a_long_pause_is_folded_and_a_short_one_is_not():
    spans = [_span("step", 0, 50), _span("step", 54, 46), _span("step", 10_000, 50)]
    time = folded_time(spans)
    assert list(time.pieces) == [(0, 100), (10_000, 10_050)]
    assert time.folds() == [(100, 9_900)]
    assert coverage(spans, time, 15) == pytest.approx([1, 1, 1, 1, 1, 0.6, 1, 1, 1, 1, 1, 1, 1, 1, 1])


def test_few_ranks_show_lanes_by_phase_and_many_one_lane_each():
    spans = [_span("startup", 0, 1), _span("step", 1, 3)]
    two = draw({0: spans, 1: spans})
    assert two.count('class="lane-name"') == 4 and "75.0%" in two
    many = draw(dict.fromkeys(range(100), spans))
    assert many.count('class="lane-name"') == 64
    assert "The first 64 of 100 ranks" in many


def test_spans_without_length_are_not_a_chart():
    assert "No spans" in draw({0: [_span("step", 5.0, 0.0)]})
