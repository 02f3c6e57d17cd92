"""An interval that was chosen: as a record of the journal, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainer.intervals.formula import Reason
from trainer.observe.number_text import format_duration

EVENT = "interval_chosen"


class Chosen(NamedTuple):
    """An interval that was chosen.

    Attributes:
        of: "snapshots" or "checkpoints".
        steps: Between two of them; None where seconds decide.
        seconds: Between two of them, about.
        cost_s: What one costs.
        mtbf_s: The mean time between failures that it was chosen for.
        reason: See `BestInterval`.
    """

    of: str
    steps: int | None
    seconds: float
    cost_s: float
    mtbf_s: float
    reason: Reason

    def to_record(self) -> dict[str, Any]:
        """The fields of the journal's event."""
        return {
            "of": self.of,
            "steps": self.steps,
            "seconds": self.seconds,
            "cost": self.cost_s,
            "mtbf": self.mtbf_s,
            "reason": self.reason,
        }


def sentence(record: Mapping[str, Any]) -> str:
    """What was chosen and why.

    >>> sentence({"of": "snapshots", "steps": 500, "seconds": 4.1, "cost": 0.0021, "mtbf": 3.6e6, "reason": "patience"})
    'snapshots every 500 steps (about 4.1s): one costs 2.1ms, and no more work than that is put at risk'
    """
    seconds = format_duration(record["seconds"])
    steps = record["steps"]
    how_often = seconds if steps is None else f"{steps} steps (about {seconds})" if steps > 1 else "step"
    why = {
        "failures": f"a failure is expected every {format_duration(record['mtbf'])}",
        "patience": "no more work than that is put at risk",
        "overhead": "checkpoint.max_overhead allows no more of them",
        "writing": "writing one takes half of that time",
        "free": "that is less than 1% of a step",
    }[record["reason"]]
    return f"{record['of']} every {how_often}: one costs {format_duration(max(record['cost'], 1e-6))}, and {why}"


def newest_choices(journal: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The newest record of each kind: snapshots first."""
    newest = {record["of"]: record for record in journal if record.get("event") == EVENT}
    return [newest[of] for of in ("snapshots", "checkpoints") if of in newest]
