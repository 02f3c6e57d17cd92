import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from trainer.report.line_chart import LineChart, Series, draw


def _figure(chart: LineChart) -> ElementTree.Element:
    return ElementTree.fromstring(draw(chart))


def _paths(figure: ElementTree.Element, classes: str) -> list[str]:
    return [path.get("d", "") for path in figure.iter("path") if path.get("class") == classes]


def _coordinates(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def test_a_line_goes_through_its_values():
    figure = _figure(LineChart("Rate", [Series("rate", [(0, 0.0), (50, 1.0), (100, 0.5)], "other")], from_zero=True))
    (path,) = _paths(figure, "line other")
    (first, second, third) = _coordinates(path)
    assert (first, second[0], third[0]) == ((0, 1000), 500, 1000)
    assert 0 < second[1] < third[1] < 1000
    assert third[1] - second[1] == pytest.approx((first[1] - second[1]) / 2, abs=0.02)


def test_nan_leaves_a_gap_and_a_mark():
    points = [(0, 1.0), (10, 2.0), (20, math.nan), (30, math.inf), (40, 1.0), (50, 1.5)]
    figure = _figure(LineChart("Loss", [Series("training", points, "train")]))
    (path,) = _paths(figure, "line train")
    assert path.count("M") == 2 and len(_coordinates(path)) == 4
    assert len(_paths(figure, "bad")) == 2
    assert "not finite" in "".join(figure.itertext())


def test_nothing_finite_is_said_in_words():
    for points in ([], [(1.0, math.nan)]):
        figure = _figure(LineChart("Loss", [Series("training", points, "train")]))
        assert figure.find(".//svg") is None
        assert figure.find(".//p[@class='empty']") is not None


def test_one_value_is_a_dot():
    figure = _figure(LineChart("Loss", [Series("training", [(50.0, 2.25)], "train", smooth=True)]))
    assert _paths(figure, "dots train") and "2.2500" in "".join(figure.itertext())


def test_fifty_thousand_noisy_values_stay_small_and_one_spike_does_not_flatten_them():
    points = [(float(step), 1.0 + 0.1 * math.sin(step)) for step in range(50_000)]
    points[777] = (777.0, 1e6)
    figure = _figure(LineChart("Loss", [Series("training", points, "train", smooth=True)]))
    (raw,) = _paths(figure, "line raw train")
    heights = [y for _, y in _coordinates(raw)]
    assert len(heights) < 1300
    assert all(0 <= y <= 1000 for y in heights)
    assert sum(20 < y < 980 for y in heights) > 1000


def test_titles_are_escaped():
    markup = draw(LineChart("<em>&", [Series("<i>", [(0, 1.0), (1, 2.0)], "train")]))
    assert "<em>" not in markup and "<i>" not in markup and "&lt;em&gt;&amp;" in markup
