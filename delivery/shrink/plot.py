"""The plot of a shrinking: quality over size, as an SVG that needs nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from delivery.shrink.artefact import Artefact
from delivery.shrink.reference import Quality
from trainer.observe.number_text import format_bytes
from trainer.report.axis import Scale, scale_for, tick_texts
from trainer.report.markup import Markup, element

_WIDTH, _HEIGHT = 860, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 200, 64, 64
_LONGEST_LINE = 20  # characters of the legend: names break after a dash
_COLORS = {"float32": "#6d675d", "float16": "#8a5a00", "dynamic": "#3f7d58", "int8": "#2c5cc5", "int4": "#c8511b"}
_STYLE = """
svg { background: #fbfaf7; font: 13px system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
text { fill: #1e1c19; } .soft { fill: #6d675d; }
.grid { stroke: #e4dfd4; } .limit { stroke: #6d675d; stroke-dasharray: 5 4; }
.title { font-size: 16px; font-weight: 600; } .chosen { fill: none; stroke: #1e1c19; stroke-width: 1.5; }
"""
_SIZES = [factor * 10.0**power for power in range(2, 12) for factor in (1, 2, 5)]


def plot_of(
    artefacts: Sequence[Artefact],
    original: Quality,
    chosen: Artefact | None = None,
    budget: int | None = None,
    keep: float | None = None,
    compressed: bool = False,
) -> str:
    """An SVG document with one dot an artefact that could be measured; one that was refused is hollow.

    Sizes are those of the files, or of them compressed.
    """
    measured = [one for one in artefacts if one.size_as(compressed) and one.quality]
    sizes = [float(one.size_as(compressed) or 0) for one in measured] + ([float(budget)] if budget else [])
    values = [one.quality.value for one in measured if one.quality] + [original.value]
    least = original.value * keep if keep and original.rises else None
    if least is not None:
        values.append(least)
    x = Scale(min(sizes, default=1e3) / 1.6, max(sizes, default=1e6) * 1.6, logarithmic=True)
    y = scale_for(values)
    parts: list[Markup] = [
        element("title", f"{original.name} over size of {len(measured)} models"),
        element("style", Markup(_STYLE)),
        _text(_LEFT, 30, f"{original.name} over size", "title"),
        _text(_LEFT, 48, "each dot one file; hollow: refused by a gate", "soft"),
        *_axes(x, y, "size of the compressed file" if compressed else "size of the file"),
        _horizontal(y, original.value, f"trained model {original.value:.4g}"),
    ]
    if least is not None:
        parts.append(_horizontal(y, least, f"keeps {keep:.0%}"))
    if budget:
        across = _across(x, budget)
        parts.append(_line(across, _TOP, across, _HEIGHT - _BOTTOM, "limit"))
        parts.append(_text(across - 6, _HEIGHT - _BOTTOM - 8, f"budget {_size_text(budget)}", "soft", "end"))
    parts += [
        _dot(one, one.size_as(compressed) or 0, x, y, one is chosen)
        for one in sorted(measured, key=lambda one: one is chosen)
    ]
    parts += _legend({one.quantize for one in measured}, chosen, compressed)
    svg = element(
        "svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", width=_WIDTH,
        height=_HEIGHT, role="img",
    )  # fmt: skip
    return f"{svg}\n"


def _axes(x: Scale, y: Scale, measured: str) -> list[Markup]:
    parts = []
    ticks = y.ticks()
    for tick, text in zip(ticks, tick_texts(ticks), strict=True):
        parts.append(_line(_LEFT, _down(y, tick), _WIDTH - _RIGHT, _down(y, tick), "grid"))
        parts.append(_text(_LEFT - 8, _down(y, tick) + 4, text, "soft", "end"))
    inside = [size for size in _SIZES if x.low <= size <= x.high]
    for size in inside[:: 1 + len(inside) // 9]:
        parts.append(_line(_across(x, size), _TOP, _across(x, size), _HEIGHT - _BOTTOM, "grid"))
        parts.append(_text(_across(x, size), _HEIGHT - _BOTTOM + 20, _size_text(size), "soft", "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 18, f"{measured} (log scale)", "soft", "middle"))
    return parts


def _size_text(size: float) -> str:
    """Decimal units, as budgets are written.

    >>> _size_text(2_000_000), _size_text(500), _size_text(20_000)
    ('2 MB', '500 B', '20 kB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} B"


def _dot(artefact: Artefact, size: int, x: Scale, y: Scale, is_chosen: bool) -> Markup:
    assert size and artefact.quality, "only measured artefacts are drawn"
    across, down = _across(x, size), _down(y, artefact.quality.value)
    color = _COLORS[artefact.quantize]
    title = f"{artefact.name}: {format_bytes(size)}, {artefact.quality.name} {artefact.quality.value:.4g}"
    parts = [
        element("title", title),
        element("circle", cx=f"{across:.1f}", cy=f"{down:.1f}", r=5, stroke=color, stroke_width=1.8,
                fill="none" if artefact.refused else color),
    ]  # fmt: skip
    if is_chosen:
        parts.append(element("circle", class_="chosen", cx=f"{across:.1f}", cy=f"{down:.1f}", r=10))
    return element("g", *parts)


def _legend(quantizations: set[str], chosen: Artefact | None, compressed: bool) -> list[Markup]:
    left, down = _WIDTH - _RIGHT + 24, _TOP + 10
    parts = []
    for quantize in (name for name in _COLORS if name in quantizations):
        parts.append(element("circle", cx=left, cy=down - 4, r=5, fill=_COLORS[quantize]))
        parts.append(_text(left + 14, down, quantize))
        down += 22
    if chosen and (size := chosen.size_as(compressed)) and chosen.quality:
        parts.append(element("circle", class_="chosen", cx=left, cy=down + 8, r=7))
        parts.append(_text(left + 14, down + 12, "chosen"))
        for index, text in enumerate(
            (
                *textwrap.wrap(chosen.name, _LONGEST_LINE),
                format_bytes(size),
                f"{chosen.quality.name} {chosen.quality.value:.4g}",
            )
        ):
            parts.append(_text(left + 14, down + 32 + 18 * index, text, "soft"))
    return parts


def _horizontal(y: Scale, value: float, text: str) -> Markup:
    down = _down(y, value)
    line = _line(_LEFT, down, _WIDTH - _RIGHT, down, "limit")
    return element("g", line, _text(_LEFT + 6, down - 5, text, "soft"))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", class_=kind, x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}")


def _text(x: float, y: float, text: str, kind: str | None = None, anchor: str | None = None) -> Markup:
    return element("text", text, class_=kind, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _across(x: Scale, value: float) -> float:
    return _LEFT + (_WIDTH - _RIGHT - _LEFT) * x.place(value)


def _down(y: Scale, value: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * y.place(value)
