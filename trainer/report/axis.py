"""From numbers to places on an axis: ranges, round ticks, logarithms, and thinning of what is too dense to draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainer.observe.number_text import format_count, format_duration

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to 0..1, evenly or by orders of magnitude."""

    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 at `low` and 1 at `high`."""
        if self.logarithmic:
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the axis, at most `most` of them unless a logarithmic axis has no fewer."""
        return _log_ticks(self.low, self.high, most) if self.logarithmic else _even_ticks(self.low, self.high, most)


def _even_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


_DURATIONS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def duration_ticks(length: float, most: int = 6) -> list[float]:
    """Round times from 0 to `length` seconds, on clock units from a second up."""
    if length / most > _DURATIONS[-1]:
        return [86_400 * tick for tick in _even_ticks(0, length / 86_400, most)]
    if length / most <= _DURATIONS[0] / 2:
        return _even_ticks(0, length, most)
    step = next(step for step in _DURATIONS if step >= length / most)
    return [float(time) for time in range(0, int(length) + 1, step)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most:
            break
    if len(ticks) > most:
        ticks = ticks[:: math.ceil(len(ticks) / most)]
    return ticks if len(ticks) >= 2 else _even_ticks(low, high, most)


def scale_for(values: Sequence[float], from_zero: bool = False, orders: float = math.inf) -> Scale:
    """A scale with a little room around the values.

    Args:
        values: finite; none of them gives 0..1.
        from_zero: the axis begins at 0, as an amount wants.
        orders: values, all positive, that span more than so many powers of ten get a logarithmic axis.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and math.log10(high / low) > orders:
        return Scale(low / 1.15, high * 1.15, logarithmic=True)
    if from_zero:
        low = min(low, 0.0)
    room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low if low == 0 and from_zero else low - room, high + room)


def tick_texts(ticks: Sequence[float], unit: str = "") -> list[str]:
    """The ticks with as many digits as it takes to tell them apart.

    >>> tick_texts([0.0, 0.25, 0.5]), tick_texts([0, 20_000, 40_000]), tick_texts([0.001, 0.01, 0.1])
    (['0', '0.25', '0.50'], ['0', '20k', '40k'], ['0.001', '0.01', '0.1'])
    >>> tick_texts([0, 60, 120], unit="s"), tick_texts([0.5, 1.0], unit="%")
    (['0s', '1m', '2m'], ['0.5%', '1.0%'])
    """
    if unit == "s":
        return [_short_duration(tick) for tick in ticks]
    largest = max((abs(tick) for tick in ticks), default=0)
    gaps = [b - a for a, b in pairwise(ticks) if b > a]
    if largest >= 10_000 and all(tick == round(tick) for tick in ticks):
        texts = [_trimmed(format_count(tick)) for tick in ticks]
        if len(set(texts)) == len(texts):
            return texts
        return [f"{tick:,.0f}" for tick in ticks]
    if gaps and max(gaps) > 1.5 * min(gaps):  # a logarithmic axis
        return [f"{tick:g}{unit}" for tick in ticks]
    if largest and largest < 1e-3:
        for digits in (1, 2, 3, 4, 5, 6):
            texts = ["0" if tick == 0 else f"{tick:.{digits}e}" for tick in ticks]
            if len(set(texts)) == len(texts):
                break
        return [text.replace(".0e", "e").replace("e-0", "e-") for text in texts]
    digits = max(0, -math.floor(math.log10(min(gaps)) + 1e-9)) if gaps else 2
    if gaps and round(min(gaps) * 10**digits, 6) % 1:
        digits += 1
    return [("0" if tick == 0 else f"{tick:,.{digits}f}") + unit for tick in ticks]


def _short_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g}s"
    return format_duration(seconds).replace("m00s", "m").replace("h00m", "h").replace("d00h", "d")


def _trimmed(text: str) -> str:
    """`20.0k` as `20k`."""
    number, suffix = (text[:-1], text[-1]) if text[-1:].isalpha() else (text, "")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + suffix


def finite(points: Sequence[Point]) -> list[Point]:
    """The points that can be drawn."""
    return [point for point in points if math.isfinite(point[1])]


def smoothed(points: Sequence[Point], window: int) -> list[Point]:
    """An exponential moving average over about `window` points, its start corrected for the missing past.

    A value that is not finite is left out of the average and of the result.
    """
    keep = 1 - 2 / (window + 1)
    average = weight = 0.0
    result = []
    for x, y in points:
        if math.isfinite(y):
            average = keep * average + (1 - keep) * y
            weight = keep * weight + (1 - keep)
            result.append((x, average / weight))
    return result


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most about `most` points that look the same: the lowest and the highest of each stretch, in order.

    A value that is not finite ends a stretch and stays, so that the gap is seen.
    """
    if len(points) <= most:
        return list(points)
    x, y = np.asarray(points, np.float64).T
    edges = np.linspace(0, len(points), max(most // 2, 1) + 1).astype(int)
    kept: list[Point] = []
    for first, last in pairwise(edges):
        part = y[first:last]
        bad = ~np.isfinite(part)
        chosen = set()
        if not bad.all():
            chosen = {int(np.where(bad, np.inf, part).argmin()), int(np.where(bad, -np.inf, part).argmax())}
        if bad.any():
            chosen.add(int(bad.argmax()))
        kept += [(float(x[first + index]), float(part[index])) for index in sorted(chosen)]
    return kept
