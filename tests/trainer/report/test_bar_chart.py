import re

import pytest

from trainer.report.bar_chart import BarChart, draw, shares

_BAR = re.compile(r'<path d="M([\d.]+) 1000V([\d.]+)H([\d.]+)V1000Z">')


def test_bars_stand_side_by_side_and_are_as_high_as_their_shares():
    markup = draw(BarChart("age", [0, 10, 20, 30], [1, 4, 0], "median 12"))
    (left, top, right), (next_left, next_top, next_right) = [tuple(map(float, bar)) for bar in _BAR.findall(markup)]
    assert 0 < left < right < next_left < next_right < 1000
    assert (1000 - next_top) / (1000 - top) == pytest.approx(4, rel=1e-3)
    assert "<title>10.00 to 20.00: 80%</title>" in markup and ">median 12<" in markup
    assert "50%</span>" in markup  # a tick


def test_a_rare_bin_is_still_seen_and_a_single_value_has_a_bar():
    bars = _BAR.findall(draw(BarChart("x", [0, 1, 2], [1_000_000, 1])))
    assert float(bars[1][1]) == 996
    ((left, _, right),) = _BAR.findall(draw(BarChart("x", [5.0, 5.000000000000001], [9])))
    assert float(left) < 100 and float(right) > 900


def test_named_shares_are_escaped_and_relative_to_all():
    markup = shares("city", [("a<b", 30), ("c", 15)], 60, "3 different")
    assert re.findall(r"H([\d.]+)V1000H0Z", markup) == ["1000.0", "500.0"]
    assert "a&lt;b" in markup and "50.0%" in markup and "25.0%" in markup
