"""A run's curves as one SVG that any notebook shows: no script, no style sheet, the colours of text in either theme."""

from collections.abc import Sequence
from typing import Any

from trainer.observe.number_text import format_number
from trainer.report.axis import Point, Scale, finite, scale_for, smoothed, thinned, tick_texts
from trainer.report.markup import Markup, element

# In pixels, of one chart and of the room around its drawing.
WIDTH, HEIGHT = 380, 210
_LEFT, _TOP, _RIGHT, _BOTTOM = 52, 30, 14, 26
_MOST_POINTS = 600
_FEW_POINTS = 30  # so few that each evaluation has its dot

# Of middling lightness, so that they stand out on white and on black.
TRAINING, HELD_OUT = "#4c7fe6", "#e0722f"
_NOT_DRAWN = ("step", "split", "time", "examples", "examples_per_s", "data_wait", "learning_rate", "gradient_norm")


def draw_curves(metrics: Sequence[dict[str, Any]], total_steps: int | None = None) -> Markup:
    """The loss and the first other metric, over the steps; nothing where there is nothing to draw.

    Args:
        metrics: lines of metrics.jsonl; those of an evaluation have `split`.
        total_steps: where the axis ends; None where the lines do.
    """
    names = [name for name in dict.fromkeys(name for line in metrics for name in line) if name not in _NOT_DRAWN]
    charts = [_chart(name, metrics, total_steps) for name in sorted(names, key=lambda name: name != "loss")[:2]]
    if not charts:
        return Markup("")
    placed = [element("g", chart, transform=f"translate({index * WIDTH} 0)") for index, chart in enumerate(charts)]
    width = WIDTH * len(charts)
    return element(
        "svg",
        *placed,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {HEIGHT}",
        role="img",
        aria_label=_in_words(metrics),
        style=f"width:100%;max-width:{width}px;height:auto;font:11px system-ui,sans-serif",
    )


def _chart(name: str, metrics: Sequence[dict[str, Any]], total_steps: int | None) -> Markup:
    training = _points([line for line in metrics if "split" not in line], name)
    held_out = _points([line for line in metrics if "split" in line], name)
    drawn = finite(training) + finite(held_out)
    last = max([total_steps or 0, *(step for step, _ in drawn), 1])
    x, y = Scale(0, last), scale_for([value for _, value in drawn], orders=1.3)
    parts = []
    ticks = y.ticks(5)
    for tick, text in zip(ticks, tick_texts(ticks), strict=True):
        down = _down(y, tick)
        parts.append(_line(f"M{_LEFT} {down:.1f}H{WIDTH - _RIGHT}", "currentColor", 1, opacity=0.15))
        parts.append(_text(text, _LEFT - 6, down + 4, anchor="end"))
    ticks = x.ticks(5)
    for tick, text in zip(ticks, tick_texts(ticks), strict=True):
        parts.append(_text(text, _across(x, tick), HEIGHT - 8, anchor="middle"))
    if len(training) > 40:
        parts.append(_curve(training, x, y, TRAINING, 1, opacity=0.35))
        training = smoothed(training, max(2, len(training) // 20))
    parts.append(_curve(training, x, y, TRAINING, 1.8))
    parts.append(_curve(held_out, x, y, HELD_OUT, 1.8, has_dots=len(held_out) <= _FEW_POINTS))
    parts.append(_text(name.replace("_", " "), _LEFT, 16, opacity=1, weight=600))
    end = WIDTH - _RIGHT
    for label, color, points in (("held out", HELD_OUT, held_out), ("training", TRAINING, training)):
        if points:
            text = f"{label} {format_number(points[-1][1])}"
            parts.append(element("text", text, x=end, y=16, fill=color, text_anchor="end", font_weight=600))
            end -= 6.3 * len(text) + 12
    return element("g", *parts)


def _points(lines: Sequence[dict[str, Any]], name: str) -> list[Point]:
    return [(float(line["step"]), float(line[name])) for line in lines if isinstance(line.get(name), int | float)]


def _across(x: Scale, value: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * x.place(value)


def _down(y: Scale, value: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * y.place(value)


def _curve(
    points: Sequence[Point], x: Scale, y: Scale, color: str, width: float, opacity: float = 1, has_dots: bool = False
) -> Markup | None:
    places = [(_across(x, step), _down(y, value)) for step, value in thinned(finite(points), _MOST_POINTS)]
    if not places:
        return None
    path = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
    if has_dots or len(places) == 1:
        path += "".join(f"M{across:.1f} {down:.1f}m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0" for across, down in places)
    return _line(path, color, width, opacity)


def _line(path: str, color: str, width: float, opacity: float = 1) -> Markup:
    return element(
        "path", d=path, fill="none", stroke=color, stroke_width=width, stroke_opacity=opacity, stroke_linejoin="round"
    )


def _text(
    text: str, x: float, y: float, anchor: str = "start", opacity: float = 0.7, weight: int | None = None
) -> Markup:
    return element(
        "text", text, x=f"{x:.1f}", y=f"{y:.1f}", fill="currentColor", fill_opacity=opacity, text_anchor=anchor,
        font_weight=weight,
    )  # fmt: skip


def _in_words(metrics: Sequence[dict[str, Any]]) -> str:
    losses = [line["loss"] for line in metrics if "split" not in line and "loss" in line]
    return f"loss over {metrics[-1]['step']} steps, {losses[-1]:.4g} at the end" if losses else "nothing is logged yet"
