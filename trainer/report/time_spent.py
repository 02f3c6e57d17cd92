"""Where the wall time went: one strip over the whole run with every failure marked, and what each failure cost."""

from collections.abc import Sequence

from trainer.goodput.account import Account, Failure
from trainer.goodput.phases import DETECTION, LOST, PHASES, PRODUCTIVE, RESOURCES, RESTART
from trainer.observe.number_text import format_duration
from trainer.report.axis import Scale, duration_ticks, tick_texts
from trainer.report.gantt import FoldedTime
from trainer.report.line_chart import SIZE, x_labels
from trainer.report.markup import Markup, element, join
from trainer.report.tables import NOTHING, clock, shortened, table

# What is drawn in one colour; a restart is one, its phases are in the table.
_COLORS = {
    PRODUCTIVE: "productive",
    "data_wait": "waiting",
    "checkpoint": "saving",
    "evaluate": "evaluation",
    "export": "export",
    "startup": "start",
    "compile": "compile",
    LOST: "lost",
    DETECTION: "detection",
    RESOURCES: "resources",
    "closing": "start",
    **dict.fromkeys(RESTART, "restart"),
}
_NARROWEST = SIZE / 3000  # of the strip: what is shorter is still seen
_MOST_NUMBERED = 30


def draw(account: Account) -> Markup:
    """The strip, its legend and the table of failures."""
    time = _shown_time(account)
    if time.length <= 0:
        return element("p", "No time was recorded.", class_="empty")
    ticks = duration_ticks(time.length)
    axis = element("div", *x_labels(Scale(0, time.length), ticks, tick_texts(ticks, "s")), class_="x-axis")
    strip = element("div", _strip(account, time), *_marks(account.failures, time), class_="spent-strip")
    return join(
        element("div", strip, element("div", axis, class_="gantt-axis"), class_="spent"),
        _legend(account),
        _failures(account) if account.failures else None,
    )


def note(account: Account) -> str:
    """What stands beside it."""
    text = "Each second of the wall time is in one colour."
    if not account.failures:
        return f"{text} Nothing failed."
    count, replaced = len(account.failures), account.replacements
    without = f" During {replaced} of them the others went on." if replaced else ""
    return (
        f"{text} Marked: {count} failure{'s' if count > 1 else ''}, which cost "
        f"{format_duration(account.failure_cost_s)} in all.{without}"
    )


def _shown_time(account: Account) -> FoldedTime:
    """The wall time; what somebody had stopped is folded away."""
    pieces: list[tuple[float, float]] = []
    for tile in account.tiles:
        if pieces and tile.start <= pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], tile.end)
        else:
            pieces.append((tile.start, tile.end))
    return FoldedTime(pieces)


def _place(time: FoldedTime, at: float) -> float:
    return sum(min(max(at, start), end) - start for start, end in time.pieces) / time.length


def _strip(account: Account, time: FoldedTime) -> Markup:
    paths: dict[str, list[str]] = {}
    for tile in account.tiles:
        start, end = SIZE * _place(time, tile.start), SIZE * _place(time, tile.end)
        if tile.phase != PRODUCTIVE:
            end = max(end, start + _NARROWEST)
        paths.setdefault(_COLORS[tile.phase], []).append(f"M{start:.2f} 0V{SIZE}H{end:.2f}V0z")
    # What is rare comes last, and so on top.
    order = sorted(paths, key=lambda color: -len(paths[color]))
    order.sort(key=lambda color: color != "productive")
    drawn = [element("path", class_=f"spent-{color}", d="".join(paths[color])) for color in order]
    if folds := "".join(f"M{SIZE * place / time.length:.2f} 0V{SIZE}" for place, _ in time.folds()):
        drawn.append(element("path", class_="fold", d=folds))
    share = 0.0 if account.goodput is None else account.goodput
    what = f"the wall time by phase: {100 * share:.1f}% in steps that count, {len(account.failures)} failures"
    svg = element("svg", *drawn, viewBox=f"0 0 {SIZE} {SIZE}", preserveAspectRatio="none", role="img", aria_label=what)
    return element("div", svg, class_="lane")


def _marks(failures: Sequence[Failure], time: FoldedTime) -> list[Markup]:
    numbered = len(failures) <= _MOST_NUMBERED
    return [
        element(
            "span",
            str(number) if numbered else "",
            class_="failure-mark",
            style=f"left:{100 * _place(time, failure.at):.2f}%",
            title=f"{number}: {failure.what}, {format_duration(failure.cost_s)}",
        )
        for number, failure in enumerate(failures, start=1)
    ]


def _legend(account: Account) -> Markup:
    keys = []
    for phase, seconds in account.seconds.items():
        swatch = element("i", class_=f"swatch spent-{_COLORS[phase]}")
        share = element("span", f"{100 * seconds / account.wall_s:.1f}%", class_="share")
        keys.append(element("span", swatch, f"{PHASES[phase]} {format_duration(seconds)} ", share))
    return element("div", *keys, class_="phases spent-legend")


_SHORT = {
    "restart_ended": "ended",
    "restart_standby": "standby",
    "restart_back_off": "back-off",
    "restart_formed": "formed",
    "restart_built": "built",
    "restart_restored": "restored",
    "restart_first_step": "first call",
    "restart_down": "down",
    RESOURCES: "no hosts",
}


def _failures(account: Account) -> Markup:
    """One row a failure: what died, how long each part of the recovery took, what had to be done again."""
    rows, left_out = shortened(list(enumerate(account.failures, start=1)))
    shown = [phase for phase in _SHORT if any(failure.phases.get(phase) for _, failure in rows)]
    began = account.began or 0.0
    cells = []
    for number, failure in rows:
        phases = [_seconds(failure.phases.get(phase)) for phase in shown]
        steps = NOTHING if failure.steps_lost is None else f"{failure.steps_lost:,}"
        total = format_duration(failure.cost_s) + ("" if failure.is_over else " so far")
        cells.append(
            (
                str(number),
                clock(failure.at - began),
                failure.what,
                _seconds(failure.phases.get(DETECTION)),
                *phases,
                steps,
                _seconds(failure.lost_s),
                element("b", total),
            )
        )
    headers = ("", "at", "what", "unnoticed", *[_SHORT[phase] for phase in shown], "steps lost", "redone", "cost")
    listed = table(headers, cells, text_columns=(2,), class_="failures")
    return join(listed, element("p", left_out, class_="chart-note") if left_out else None)


def _seconds(seconds: float | None) -> str:
    return format_duration(seconds) if seconds else NOTHING
