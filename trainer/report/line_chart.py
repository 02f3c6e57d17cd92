"""Line charts: an SVG that stretches with the page, its labels beside it as text that does not.

The drawing lives in a square of 1000 by 1000 that the browser stretches to any width and height. Lines keep their
thickness by `vector-effect`, dots are zero-length lines with round caps, and labels are HTML placed in per cent, so the
page reads as well on a telephone as on a wide screen, and without a script.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.observe.number_text import format_number
from trainer.report.axis import Point, Scale, finite, scale_for, smoothed, thinned, tick_texts
from trainer.report.markup import Markup, element, escape, join

SIZE = 1000
MOST_POINTS = 1200
FEW_POINTS = 50  # so few that each may have its dot


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: Sequence[Point]  # (step, value), steps ascending; values may be NaN
    color: str  # a CSS class: train, held-out, other
    smooth: bool = False  # draws the values thin and an average over them thick
    dots: bool = False  # marks the values themselves, unless they are many


@dataclass(frozen=True)
class LineChart:
    """What to draw: series over steps, with steps marked at which something happened."""

    title: str
    series: Sequence[Series]
    unit: str = ""
    marks: Sequence[tuple[float, str]] = ()  # (step, what happened)
    from_zero: bool = False
    orders: float = math.inf  # of magnitude, beyond which the axis is logarithmic
    percent: bool = False
    tall: bool = False
    last_step: float | None = None  # the axis reaches this far in all charts of a page
    summary: str = ""  # instead of a legend


def draw(chart: LineChart) -> Markup:
    """The chart as a `<figure>`; one without any finite value says so in words."""
    drawn = [point for series in chart.series for point in finite(series.points)]
    unit = "%" if chart.percent else ""
    if not drawn:
        note = element("p", "No values to draw." if not _bad_steps(chart) else "No finite value.", class_="empty")
        return element("figure", _caption(chart, None), note, class_="chart")
    x = _x_scale(chart, drawn)
    y = scale_for(_y_values(chart), chart.from_zero, chart.orders)
    y_ticks, x_ticks = y.ticks(), x.ticks()
    lines = [element("path", class_="grid", d=f"M0 {_down(y, tick)}H{SIZE}") for tick in y_ticks]
    lines += [
        element("path", element("title", text), class_="mark", d=f"M{_across(x, step)} 0V{SIZE}")
        for step, text in chart.marks
    ]
    for series in chart.series:
        lines += _series_paths(series, x, y)
    lines += [
        element("path", element("title", f"{name}: not finite at step {step:,.0f}"), class_="bad", d=_dot(x, step, 12))
        for step, name in _bad_steps(chart)
    ]
    svg = element(
        "svg",
        *lines,
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
        role="img",
        aria_label=_description(chart),
        data_x=f"{x.low:.10g} {x.high:.10g}",
        data_y=f"{y.low:.10g} {y.high:.10g}",
        data_log="1" if y.logarithmic else None,
        data_unit=unit or None,
    )
    plot = element(
        "div",
        element("div", *_y_labels(y, y_ticks, tick_texts(y_ticks, unit)), class_="y-axis"),
        element("div", svg, class_="canvas"),
        element("div", "step", class_="x-name"),
        element("div", *x_labels(x, x_ticks, tick_texts(x_ticks)), class_="x-axis"),
        class_="plot tall" if chart.tall else "plot",
    )
    return element("figure", _caption(chart, y), plot, class_="chart")


def _x_scale(chart: LineChart, drawn: Sequence[Point]) -> Scale:
    steps = [point[0] for point in drawn] + [step for step, _ in chart.marks]
    low = min(0.0, *steps) if len(steps) > 1 else min(0.0, steps[0])
    high = max([*steps, chart.last_step or 0])
    return Scale(low, high if high > low else low + 1)


def _y_values(chart: LineChart) -> list[float]:
    """What the vertical axis must hold: of a noisy series its bulk, where a lone spike would flatten all the rest."""
    values: list[float] = []
    for series in chart.series:
        own = sorted(value for _, value in finite(series.points))
        cut = len(own) // 200
        if series.smooth and cut:
            low, high = own[cut], own[-cut - 1]
            far = 2 * (high - low)
            own = [value for value in own if low - far <= value <= high + far]
        values += own
    return values


def _window(series: Series) -> int:
    return max(1, min(len(series.points) // 20, 500))


def _across(x: Scale, value: float) -> str:
    return f"{SIZE * x.place(value):.2f}".rstrip("0").rstrip(".")


def _down(y: Scale, value: float) -> str:
    if y.logarithmic and value <= 0:
        return str(SIZE)
    place = min(max(1 - y.place(value), 0), 1)  # a spike beyond the axis stays at its edge
    return f"{SIZE * place:.2f}".rstrip("0").rstrip(".")


def _dot(x: Scale, step: float, down: float | str) -> str:
    return f"M{_across(x, step)} {down}h0"


def _series_paths(series: Series, x: Scale, y: Scale) -> list[Markup]:
    window = _window(series)
    average = series.smooth and window > 1
    paths = []
    if average:
        trend = thinned(smoothed(series.points, window), MOST_POINTS)
        paths.append(_path(thinned(series.points, MOST_POINTS), x, y, f"line raw {series.color}", None))
        paths.append(_path(trend, x, y, f"line {series.color}", f"{series.name} (smoothed)"))
    else:
        paths.append(_path(thinned(series.points, MOST_POINTS), x, y, f"line {series.color}", series.name))
    points = finite(series.points)
    if len(points) == 1 or (series.dots and len(points) <= FEW_POINTS):
        dots = "".join(_dot(x, step, _down(y, value)) for step, value in points)
        paths.append(element("path", class_=f"dots {series.color}", d=dots))
    return paths


def _path(points: Sequence[Point], x: Scale, y: Scale, classes: str, name: str | None) -> Markup:
    """A line with gaps where values are not finite; named lines answer to the pointer."""
    parts = []
    pen = "M"
    for step, value in points:
        if math.isfinite(value):
            parts.append(f"{pen}{_across(x, step)} {_down(y, value)}")
            pen = "L"
        else:
            pen = "M"
    return element("path", class_=classes, d="".join(parts), data_name=name)


def _bad_steps(chart: LineChart) -> list[tuple[float, str]]:
    """Steps with a NaN or an infinity, thinned: a run that went bad has thousands of them."""
    bad = [(step, s.name) for s in chart.series for step, value in s.points if not math.isfinite(value)]
    return bad[:: max(1, math.ceil(len(bad) / 100))]


def _y_labels(y: Scale, ticks: Sequence[float], texts: Sequence[str]) -> list[Markup]:
    return [
        element("span", text, style=f"bottom:{100 * y.place(tick):.2f}%")
        for tick, text in zip(ticks, texts, strict=True)
    ]


def x_labels(x: Scale, ticks: Sequence[float], texts: Sequence[str]) -> list[Markup]:
    """Labels along a horizontal axis; every other one may go on a narrow page."""
    labels = []
    for index, (tick, text) in enumerate(zip(ticks, texts, strict=True)):
        place = x.place(tick)
        edge = "first" if place < 0.02 else "last" if place > 0.97 else None
        classes = " ".join(filter(None, [edge, "odd" if index % 2 and len(ticks) > 4 else None])) or None
        labels.append(element("span", text, class_=classes, style=f"left:{100 * place:.2f}%"))
    return labels


def _caption(chart: LineChart, y: Scale | None) -> Markup:
    notes = [chart.unit] if chart.unit else []
    if y and y.logarithmic:
        notes.append("log scale")
    legend = []
    for series in chart.series:
        swatch = element("i", class_=f"swatch {series.color}")
        last = element("b", _value_text(series.points[-1][1], chart)) if series.points else None
        legend.append(element("span", swatch, escape(series.name), " ", last, class_="key"))
    if chart.summary:
        legend = [element("span", element("b", chart.summary), class_="key")]
    if chart.marks and chart.tall:
        legend.append(element("span", element("i", class_="swatch mark"), _mark_text(chart), class_="key"))
    if _bad_steps(chart):
        legend.append(element("span", element("i", class_="swatch bad"), "not finite", class_="key"))
    title = element("span", chart.title, class_="title")
    unit = element("span", ", ".join(notes), class_="unit") if notes else None
    return element("figcaption", element("span", title, join(" ", unit) if unit else None), *legend)


def _mark_text(chart: LineChart) -> str:
    kinds = list(dict.fromkeys(text for _, text in chart.marks))
    text = ", ".join(kinds)
    return f"{text} ({len(chart.marks)} times)" if len(chart.marks) > 1 else text


def _value_text(value: float, chart: LineChart) -> str:
    if chart.percent:
        return f"{value:.1f}%"
    return format_number(value)


def _description(chart: LineChart) -> str:
    ends = [
        f"{series.name} ends at {_value_text(points[-1][1], chart)}"
        for series in chart.series
        if (points := finite(series.points))
    ]
    return f"{chart.title} over steps: {', '.join(ends)}"
