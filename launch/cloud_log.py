"""`phalanx logs --json`: what happened in a run, as Google Cloud Logging reads it, one JSON object a line.

Nothing is written twice: the lines are made from the journal and the metrics that every run keeps.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from cluster.run_lock import KEEPING, read_holder
from trainer.observe.json_lines import encode_line
from trainer.observe.tail import Tail
from trainer.run_folder import RunFolder

_LOOK_S = 0.2
_LABELS = "logging.googleapis.com/labels"
# What only a replay needs: twenty a second.
_LEFT_OUT = frozenset(("ticked", "heartbeat"))
_SEVERITIES = {
    "DEBUG": ("progressed", "snapshot_taken"),
    "WARNING": ("host_draining", "worker_leaving", "checkpoint_damaged", "records_skipped", "rolled_back"),
    "ERROR": ("checkpoint_failed", "host_lost", "failed"),
}
_SEVERITY = {event: severity for severity, events in _SEVERITIES.items() for event in events}


class RunEvents:
    """The events of a run that are new since the last time, oldest first.

    Args:
        folder: Of the run; its name is on every line, as it is in the log and the metrics of who serves its model.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._run = folder.path.resolve().name
        self._journal, self._metrics = Tail(folder.journal), Tail(folder.metrics)
        self._newest_metrics = float("-inf")
        self._told: set[str] = set()  # workers that were to end

    def read(self) -> Iterator[str]:
        """Their lines, without the line break."""
        # Metrics are shortened when a run goes on from an earlier step, and then read again from their beginning.
        metrics = [record for record in self._metrics.read() if record["time"] > self._newest_metrics]
        self._newest_metrics = max([self._newest_metrics, *(record["time"] for record in metrics)])
        for record in sorted([*self._journal.read(), *metrics], key=lambda record: record["time"]):
            if record.get("event") not in _LEFT_OUT:
                yield encode_line(self._entry(record)).decode().rstrip("\n")

    def _entry(self, record: dict[str, Any]) -> dict[str, Any]:
        facts = dict(record)
        facts.pop("at", None)  # by a clock that only the supervisor has
        at = datetime.fromtimestamp(facts.pop("time"), timezone.utc).isoformat(timespec="microseconds")
        event = facts.pop("event", "metrics")
        if event == "command":
            event = facts.pop("command")
            if event in ("kill", "stop"):
                self._told.add(facts["worker"])
        severity = _severity(event, facts, self._told)
        labels = {name: str(facts.pop(name)) for name in ("generation", "rank") if facts.get(name) is not None}
        return {"severity": severity, "time": at, "message": event, _LABELS: {"run": self._run, **labels}, **facts}


def follow_events(folder: RunFolder, show: Callable[[str], object], last: int = 0) -> None:
    """Shows what happens until the run has ended.

    Args:
        folder: Of the run.
        show: Gets each line.
        last: So many of what has happened already; 0: all.
    """
    events, is_over, first = RunEvents(folder), False, -last
    while not is_over:
        # In this order: what happened before the end is shown.
        is_over = read_holder(folder.path) is None and read_holder(folder.path, KEEPING) is None
        for line in list(events.read())[first:]:
            show(line)
        first = 0
        if not is_over:
            time.sleep(_LOOK_S)


def _severity(event: str, facts: dict[str, Any], told: set[str]) -> str:
    if event == "worker_exited":
        ended_badly = facts.get("signal") is not None or facts.get("code")
        return "WARNING" if ended_badly and facts.get("worker") not in told else "INFO"
    return _SEVERITY.get(event, "INFO")
