"""The ledger of a process that trains alone: there is no supervisor to tell, so its trace does."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.goodput.phases import BUILT, CHECKPOINT, COMPILE, EVALUATE, EXPORT, FIRST_STEP, PRODUCTIVE, STARTUP
from trainer.goodput.supervised import Ledger

Record = Mapping[str, Any]


def add_launch(ledger: Ledger, records: Sequence[Record], spans: Sequence[Record]) -> None:
    """Adds all that one process did.

    Args:
        ledger: gets it.
        records: those of the journal, from "started" or "resumed" on.
        spans: of this process, by start; what is not in them is taken for steps.
    """
    first = records[0]
    began = min([first["time"], *(span["start"] for span in spans)])
    ended = max([*(record["time"] for record in records), *(_end(span) for span in spans)])
    last = records[-1]
    ledger.launched(began, "the process ended" if ledger.reason is None else ledger.reason)
    again = bool(ledger.failures) and not ledger.failures[-1].is_over
    if again:
        ledger.failures[-1].source = "checkpoint"
    phases = {
        "startup": BUILT if again else STARTUP,
        "compile": FIRST_STEP if again else COMPILE,
        "evaluate": EVALUATE,
    }
    timeline, stepped = ledger.timeline, False
    ledger.goes_on_from(first.get("step", 0), first["time"])
    marks = [record for record in records if record["event"] in ("finished", "stopped", "exported", "rolled_back")]
    for item in sorted([*spans, *marks], key=lambda item: item.get("start", item.get("time", 0.0))):
        name = item.get("name", item.get("event"))
        if name in phases:
            ledger.spend(item["start"], BUILT if again and not stepped else PRODUCTIVE)
            ledger.spend(item["start"] + item["duration"], phases[name])
            if name == "compile":
                stepped = True
                ledger.recovered()
        elif name == "step":
            stepped = True
            ledger.recovered()
            ledger.completed(item.get("step", 0), item["start"])
        elif name in ("finished", "stopped"):
            ledger.completed(item.get("step", 0), item["time"])
            ledger.spend(_last_step_end(spans, timeline.end or began), PRODUCTIVE)
            ledger.spend(item["time"], CHECKPOINT)
            ledger.ended(name)
        elif name == "exported":
            ledger.spend(item["time"], EXPORT)
        elif name == "rolled_back":
            ledger.spend(item["time"], PRODUCTIVE)
            ledger.add(item)
    for record in records:
        if record["event"] == "checkpoint_saved":
            ledger.add(record)
    if last["event"] not in ("finished", "stopped", "exported"):
        ledger.spend(ended, PRODUCTIVE)
    ledger.reason = last.get("reason") if last["event"] == "failed" else None


def _end(span: Record) -> float:
    return span.get("end", span["start"] + span["duration"])


def _last_step_end(spans: Sequence[Record], default: float) -> float:
    return max((_end(span) for span in spans if span["name"] in ("step", "compile", "evaluate")), default=default)
