"""How long a run took and how much of that went into steps that count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.report.reading import RunRecord

_ENDED_BY_WISH = ("stopped", "finished")


@dataclass(frozen=True)
class WallTime:
    """Seconds of a run: a pause that the user made (stop, resume later) is left out, a crash and its downtime are
    not."""

    began: float | None  # seconds since the epoch
    ended: float | None
    pauses: float

    @property
    def duration(self) -> float | None:
        """From the first event to the last, pauses left out."""
        if self.began is None or self.ended is None:
            return None
        return max(self.ended - self.began - self.pauses, 0.0)


def status(journal: list[dict[str, Any]]) -> str:
    """`finished`, `stopped`, `failed`, or `unfinished` for a run that goes on or was killed."""
    for event in reversed(journal):
        if event["event"] in (*_ENDED_BY_WISH, "failed"):
            return event["event"]
        if event["event"] in ("started", "resumed"):
            break
    return "unfinished"


def wall_time(record: RunRecord) -> WallTime:
    """The wall time of a run from its journal, and from its spans and metrics where those reach further."""
    times = [event["time"] for event in record.journal if "time" in event]
    times += [line["time"] for line in record.training + record.evaluations if "time" in line]
    for spans in record.spans.values():
        times.append(min(span["start"] for span in spans))
        times.append(max(span_end(span) for span in spans))
    pauses = 0.0
    previous: dict[str, Any] | None = None
    for event in record.journal:
        if previous and event["event"] in ("started", "resumed") and previous["event"] in _ENDED_BY_WISH:
            pauses += max(event["time"] - previous["time"], 0.0)
        previous = event
    return WallTime(min(times, default=None), max(times, default=None), pauses)


def span_end(span: Mapping[str, Any]) -> float:
    """When a span, or the last of a bundle of spans, ended; seconds since the epoch."""
    return span.get("end", span["start"] + span["duration"])


def phase_totals(spans: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, int]]:
    """Seconds and number of spans by phase, in the order in which the phases first appear."""
    totals: dict[str, tuple[float, int]] = {}
    for span in spans:
        seconds, count = totals.get(span["name"], (0.0, 0))
        totals[span["name"]] = (seconds + span["duration"], count + span.get("count", 1))
    return totals


def useful_step_seconds(spans: Sequence[Mapping[str, Any]]) -> float:
    """Time in steps that were not lost: steps which were trained again after a failure count once.

    Args:
        spans: of one rank, by start.
    """
    useful: list[Mapping[str, Any]] = []
    for span in spans:
        if span["name"] != "step":
            continue
        step = span.get("step")
        while step is not None and useful and useful[-1].get("step", -1) >= step:
            useful.pop()
        useful.append(span)
    return sum(span["duration"] for span in useful)


def goodput(record: RunRecord, wall: WallTime) -> float | None:
    """Useful step time over wall time, 0 to 1, mean of the ranks; None without a trace."""
    if not record.spans or not wall.duration:
        return None
    useful = sum(useful_step_seconds(spans) for spans in record.spans.values()) / len(record.spans)
    return min(useful / wall.duration, 1.0)
