"""Histograms: bars in an SVG that stretches with the page, labels beside it as text that does not (`line_chart`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainer.observe.number_text import format_count, format_number
from trainer.report.axis import Scale, tick_texts
from trainer.report.line_chart import SIZE, x_labels
from trainer.report.markup import Markup, element

_GAP = 0.08  # of a bar's width, between it and the next


@dataclass(frozen=True)
class BarChart:
    """Counts of numbers in bins."""

    title: str
    edges: Sequence[float]  # ascending, one more than there are counts
    counts: Sequence[int]
    summary: str = ""


def draw(chart: BarChart) -> Markup:
    """The histogram as a `<figure>`; each bar tells its range and its share to the pointer."""
    x = Scale(chart.edges[0], chart.edges[-1])
    most, total = max(chart.counts), sum(chart.counts)
    y = Scale(0.0, 1.05 * 100 * most / max(total, 1) or 1.0)
    y_ticks = y.ticks(4)
    # A single value has no width that ticks could lie in.
    x_ticks = x.ticks() if x.high - x.low > 1e-9 * max(1.0, abs(x.low)) else []
    lines = [element("path", class_="grid", d=f"M0 {_down(y, tick)}H{SIZE}") for tick in y_ticks] + [
        _bar(x, y, low, high, count, total)
        for (low, high), count in zip(pairwise(chart.edges), chart.counts, strict=True)
    ]
    svg = element(
        "svg",
        *lines,
        viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"Histogram of {chart.title}, {format_number(x.low)} to {format_number(x.high)}",
    )
    labels = [
        element("span", text, style=f"bottom:{100 * y.place(tick):.2f}%")
        for tick, text in zip(y_ticks, tick_texts(y_ticks, "%"), strict=True)
    ]
    plot = element(
        "div",
        element("div", *labels, class_="y-axis"),
        element("div", svg, class_="canvas bars"),
        element("div"),
        element("div", *x_labels(x, x_ticks, tick_texts(x_ticks)), class_="x-axis"),
        class_="plot",
    )
    title = element("span", chart.title, class_="name")
    note = element("span", chart.summary, class_="key") if chart.summary else None
    return element("figure", element("figcaption", element("span", title), note), plot, class_="chart")


def shares(title: str, counts: Sequence[tuple[str, int]], total: int, summary: str = "") -> Markup:
    """Named counts as a `<figure>` of lying bars, in the order given; the longest bar takes the whole width.

    Args:
        title: Over it.
        counts: By name.
        total: That they are shares of, others that are not named included.
        summary: Beside the title.
    """
    most = max([count for _, count in counts], default=0)
    rows = []
    for name, count in counts:
        width = f"{SIZE * count / max(most, 1):.1f}"
        bar = element("path", element("title", f"{name}: {count:,}"), d=f"M0 0H{width}V{SIZE}H0Z")
        svg = element("svg", bar, viewBox=f"0 0 {SIZE} {SIZE}", preserveAspectRatio="none", aria_hidden="true")
        share = element("span", f"{100 * count / max(total, 1):.1f}%", class_="share")
        rows += [
            element("div", name, class_="lane-name", title=name),
            element("div", svg, class_="lane"),
            element("div", element("span", format_count(count)), share, class_="total"),
        ]
    title_and_note = [element("span", element("span", title, class_="name"))]
    if summary:
        title_and_note.append(element("span", summary, class_="key"))
    return element(
        "figure", element("figcaption", *title_and_note), element("div", *rows, class_="gantt shares"), class_="chart"
    )


def _bar(x: Scale, y: Scale, low: float, high: float, count: int, total: int) -> Markup | None:
    if not count:
        return None
    share = 100 * count / total
    left, right = SIZE * x.place(low), SIZE * x.place(high)
    gap = _GAP * (right - left) / 2
    title = element("title", f"{format_number(low)} to {format_number(high)}: {share:.2g}%")
    # A bar that would be thinner than a line is still seen.
    top = min(SIZE - 4.0, float(_down(y, share)))
    return element("path", title, d=f"M{left + gap:.2f} {SIZE}V{top:.2f}H{right - gap:.2f}V{SIZE}Z")


def _down(y: Scale, value: float) -> str:
    return f"{SIZE * (1 - y.place(value)):.2f}".rstrip("0").rstrip(".")
