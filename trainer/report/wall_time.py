"""How long a run took, and how it ended."""

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
    return WallTime(min(times, default=None), max(times, default=None), record.account.paused_s)


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
