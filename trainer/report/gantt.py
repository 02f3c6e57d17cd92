"""When which phase ran: a lane a phase under each rank, its height the share of the time that the phase was running.

A run has more spans than pixels. So the time is cut into columns and each lane shows, column by column, how much of
it the phase took: full height for an evaluation of a second, a low band for a data wait of 0.1 ms in each 7 ms. Long
stretches with no span at all (a run that was stopped and resumed the next day) are folded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from trainer.observe.number_text import format_count, format_duration
from trainer.report.axis import Scale, duration_ticks, tick_texts
from trainer.report.line_chart import SIZE, x_labels
from trainer.report.markup import Markup, element, join
from trainer.report.wall_time import phase_totals, span_end

COLUMNS = 900
MOST_RANKS = 64
MOST_UNSTACKED = 2  # ranks with a lane for each phase
COLORS = 8
# The same phase has the same colour in every report; what is not named here takes the colours after these.
_KNOWN_PHASES = ("startup", "data", "step", "evaluate", "checkpoint", "export")
FOLD_FROM_S = 10.0
_LEVELS = 50  # heights that are told apart; equal neighbours become one bar


@dataclass(frozen=True)
class FoldedTime:
    """Time with its idle stretches folded away: pieces (start, end) in seconds since the epoch, in order, apart."""

    pieces: Sequence[tuple[float, float]]

    @property
    def length(self) -> float:
        """Seconds that are left."""
        return sum(end - start for start, end in self.pieces)

    def place(self, times: np.ndarray) -> np.ndarray:
        """Seconds from the beginning, folds left out; a time inside a fold lies at its edge."""
        placed = np.zeros(len(times))
        for start, end in self.pieces:
            placed += np.clip(times, start, end) - start
        return placed

    def folds(self) -> list[tuple[float, float]]:
        """(seconds from the beginning, seconds folded away) of each fold."""
        folds, gone = [], 0.0
        for (start, end), (following, _) in pairwise(self.pieces):
            gone += end - start
            folds.append((gone, following - end))
        return folds


def folded_time(spans: Sequence[Mapping[str, Any]]) -> FoldedTime:
    """The time that `spans` cover, with idle stretches above 10 s and above a tenth of the busy time folded."""
    busy: list[list[float]] = []
    for span in sorted(spans, key=lambda span: span["start"]):
        end = max(span_end(span), span["start"])
        if busy and span["start"] <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], end)
        else:
            busy.append([span["start"], end])
    fold_from = max(FOLD_FROM_S, 0.1 * sum(end - start for start, end in busy))
    pieces: list[list[float]] = []
    for start, end in busy:
        if pieces and start - pieces[-1][1] < fold_from:
            pieces[-1][1] = end
        else:
            pieces.append([start, end])
    return FoldedTime([(start, end) for start, end in pieces])


def coverage(spans: Sequence[Mapping[str, Any]], time: FoldedTime, columns: int) -> np.ndarray:
    """The share of each column, 0 to 1, that the spans take; `columns` values."""
    starts = time.place(np.array([span["start"] for span in spans]))
    ends = time.place(np.array([max(span_end(span), span["start"]) for span in spans]))
    # A bundle of spans is spread evenly between its first start and its last end.
    seconds = np.minimum(np.array([span["duration"] for span in spans]), ends - starts)
    width = time.length / columns
    covered = np.zeros(columns)
    density = np.divide(seconds, ends - starts, out=np.zeros(len(spans)), where=ends > starts)
    first = np.clip((starts / width).astype(int), 0, columns - 1)
    last = np.clip((ends / width).astype(int), 0, columns - 1)
    single = first == last
    np.add.at(covered, first[single], seconds[single])
    for begin, end, start_s, end_s, share in zip(
        first[~single], last[~single], starts[~single], ends[~single], density[~single], strict=True
    ):
        covered[begin] += share * ((begin + 1) * width - start_s)
        covered[begin + 1 : end] += share * width
        covered[end] += share * (end_s - end * width)
    return np.clip(covered / width, 0, 1)


def draw(spans: Mapping[int, Sequence[Mapping[str, Any]]]) -> Markup:
    """The chart: a lane a phase for one or two ranks, a lane a rank with the phases stacked for more."""
    everything = [span for lines in spans.values() for span in lines]
    time = folded_time(everything)
    if time.length <= 0:
        return element("p", "No spans were recorded.", class_="empty")
    phases = list(dict.fromkeys(span["name"] for span in sorted(everything, key=lambda span: span["start"])))
    shown = {rank: spans[rank] for rank in list(spans)[:MOST_RANKS]}
    stacked = len(spans) > MOST_UNSTACKED
    rows = _rank_lanes(shown, phases, time) if stacked else _phase_lanes(shown, phases, time)
    ticks = duration_ticks(time.length)
    axis = element("div", *x_labels(Scale(0, time.length), ticks, tick_texts(ticks, "s")), class_="x-axis")
    rows += [element("div"), element("div", axis, class_="gantt-axis"), element("div", class_="total")]
    notes = [f"The first {MOST_RANKS} of {len(spans)} ranks. "] if len(spans) > MOST_RANKS else []
    if folds := time.folds():
        gone = format_duration(sum(seconds for _, seconds in folds))
        notes.append(
            f"Dashed lines: idle time folded away, {gone} in {len(folds)} place{'s' if len(folds) > 1 else ''}."
        )
    return join(
        _legend(everything, phases, len(spans), time) if stacked else None,
        element("div", *rows, class_="gantt stacked" if stacked else "gantt"),
        element("p", *notes, class_="chart-note") if notes else None,
    )


def _phase_lanes(
    ranks: Mapping[int, Sequence[Mapping[str, Any]]], phases: Sequence[str], time: FoldedTime
) -> list[Markup]:
    """A lane for each phase of each rank; beside it the total, the share of the time and the number of spans."""
    rows = []
    for rank, spans in ranks.items():
        totals = phase_totals(spans)
        if len(ranks) > 1:
            rows.append(element("div", f"rank {rank}", class_="rank"))
        for phase in (phase for phase in phases if phase in totals):
            seconds, count = totals[phase]
            tops = coverage([span for span in spans if span["name"] == phase], time, COLUMNS)
            what = f"{phase}: {format_duration(seconds)} in {count} spans"
            share = element("span", f"{100 * seconds / time.length:.1f}%", class_="share")
            number = element("span", f"{format_count(count)}\N{MULTIPLICATION SIGN}", class_="count")
            rows += [
                element("div", phase, class_="lane-name"),
                _lane([(phase, np.zeros(COLUMNS), tops)], time, what),
                element("div", element("span", format_duration(seconds)), share, number, class_="total"),
            ]
    return rows


def _rank_lanes(
    ranks: Mapping[int, Sequence[Mapping[str, Any]]], phases: Sequence[str], time: FoldedTime
) -> list[Markup]:
    """A lane for each rank, its phases on top of each other; beside it the share of the time in steps."""
    rows = []
    for rank, spans in ranks.items():
        layers, bottoms = [], np.zeros(COLUMNS)
        for phase in phases:
            own = [span for span in spans if span["name"] == phase]
            tops = np.minimum(bottoms + coverage(own, time, COLUMNS), 1.0) if own else bottoms
            layers.append((phase, bottoms, tops))
            bottoms = tops
        share = 100 * phase_totals(spans).get("step", (0.0, 0))[0] / time.length
        rows += [
            element("div", f"rank {rank}", class_="lane-name"),
            _lane(layers, time, f"rank {rank}: {share:.1f}% of the time in steps"),
            element("div", element("span", f"{share:.1f}%", title="of the time in steps"), class_="total"),
        ]
    return rows


def _legend(spans: Sequence[Mapping[str, Any]], phases: Sequence[str], num_ranks: int, time: FoldedTime) -> Markup:
    """The colours, with the totals of a phase as the mean of the ranks."""
    keys = []
    for phase, (seconds, _) in sorted(phase_totals(spans).items(), key=lambda item: phases.index(item[0])):
        mean = seconds / num_ranks
        swatch = element("i", class_=f"swatch {_color(phase)}")
        share = element("span", f"{100 * mean / time.length:.1f}%", class_="share")
        keys.append(element("span", swatch, f"{phase} {format_duration(mean)} ", share))
    return element("div", *keys, class_="phases")


def _lane(layers: Sequence[tuple[str, np.ndarray, np.ndarray]], time: FoldedTime, what: str) -> Markup:
    """One strip over the time: layers of (phase, bottom, top), each column 0 to 1."""
    paths = [element("path", class_=_color(phase), d=_skyline(bottoms, tops)) for phase, bottoms, tops in layers]
    if folds := "".join(f"M{SIZE * place / time.length:.2f} 0V{SIZE}" for place, _ in time.folds()):
        paths.append(element("path", class_="fold", d=folds))
    svg = element("svg", *paths, viewBox=f"0 0 {SIZE} {SIZE}", preserveAspectRatio="none", role="img", aria_label=what)
    return element("div", svg, class_="lane")


def _color(phase: str) -> str:
    """The CSS class of a phase."""
    if phase in _KNOWN_PHASES:
        return f"phase-{_KNOWN_PHASES.index(phase)}"
    others = COLORS - len(_KNOWN_PHASES)
    return f"phase-{len(_KNOWN_PHASES) + sum(phase.encode()) % others}"


def _skyline(bottoms: np.ndarray, tops: np.ndarray) -> str:
    """One rectangle a stretch of equal columns; heights are rounded up, so that the smallest share is still seen."""
    low = np.floor(bottoms * _LEVELS) / _LEVELS
    high = np.where(tops > bottoms, np.ceil(tops * _LEVELS) / _LEVELS, low)
    changed = (np.diff(low, prepend=-1.0) != 0) | (np.diff(high, prepend=-1.0) != 0)
    edges = [*np.flatnonzero(changed), len(low)]
    width = SIZE / len(low)
    parts = []
    for start, end in pairwise(edges):
        if high[start] > low[start]:
            top, bottom = SIZE * (1 - high[start]), SIZE * (1 - low[start])
            parts.append(f"M{start * width:.1f} {bottom:.0f}V{top:.0f}H{end * width:.1f}V{bottom:.0f}z")
    return "".join(parts)
