"""The account of a run from its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.goodput.account import Account
from trainer.goodput.alone import add_launch
from trainer.goodput.phases import CHECKPOINT, DATA_WAIT
from trainer.goodput.supervised import Ledger
from trainer.observe.journal import read_journal
from trainer.observe.trace import read_trace

Record = Mapping[str, Any]
# The event in the journal that holds an account's `to_json`.
SUMMARY = "goodput"
_ROUNDING_S = 1e-3  # a trace has microseconds, a journal the whole float
# Spans within the steps that are no steps.
WAITS = {"data": DATA_WAIT, "snapshot_stall": CHECKPOINT}


def read_account(run: Path, until: float | None = None) -> Account:
    """The account of a run folder; an empty one where there is no journal.

    Args:
        run: the folder.
        until: now, in seconds since the epoch, for a run that is going on.
    """
    traces = sorted((run / "trace").glob("*.jsonl"))
    spans = {int(path.stem): read_trace(path) for path in traces if path.stem.isdigit()}
    return account_of(read_journal(run / "journal.jsonl"), spans, until)


def account_of(journal: Sequence[Record], spans: Mapping[int, Sequence[Record]], until: float | None = None) -> Account:
    """The account of a run.

    Args:
        journal: its records, oldest first.
        spans: the trace, by rank.
        until: now, for a run that is going on.
    """
    ledger = Ledger()
    fill(ledger, journal, spans)
    return ledger.account(until)


def fill(ledger: Ledger, journal: Sequence[Record], spans: Mapping[int, Sequence[Record]]) -> None:
    """Tells a new ledger all that a run folder holds. The later records of a supervised launch can follow one by one.

    Args:
        ledger: gets it.
        journal: its records, oldest first.
        spans: the trace, by rank.
    """
    launches = _launches(journal)
    for number, records in enumerate(launches):
        if records[0]["event"] == "supervisor_started":
            for record in records:
                ledger.add(record)
            continue
        following = launches[number + 1][0]["time"] if number + 1 < len(launches) else float("inf")
        add_launch(ledger, records, _spans_of(spans.get(0, ()), records[0]["time"], following))
    for rank, lines in spans.items():
        charge(ledger, rank, lines)


def charge(ledger: Ledger, rank: int, spans: Sequence[Record]) -> None:
    """Adds what a rank waited within the steps."""
    for span in spans:
        if (phase := WAITS.get(span["name"])) is not None:
            end = span.get("end", span["start"] + span["duration"])
            ledger.timeline.charge(phase, rank, span["start"], end, span["duration"])


def _launches(journal: Sequence[Record]) -> list[list[Record]]:
    """The records of each process that launched the run: one that trained alone, or one that supervised."""
    launches: list[list[Record]] = []
    generation: int | None = None  # None: the supervisor's own, whatever it says
    over = False
    for record in journal:
        event = record["event"]
        if event == SUMMARY:
            continue  # says what the others have said
        if event == "supervisor_started" and not record.get("continued"):
            launches.append([record])
            generation, over = None, False
            continue
        if event in ("started", "resumed"):
            formed = bool(launches) and generation is None and not over and _has_formed(launches[-1], record)
            if not formed and record.get("generation") != generation:
                launches.append([record])
                generation = record.get("generation")
                continue
        if generation is not None and record.get("generation", generation) != generation:
            continue  # said by a process that has not begun yet: what went before is no time of the one before it
        if event == "command" and record.get("command") == "finish":
            over = True
        if launches:
            launches[-1].append(record)
    return launches


def _has_formed(launch: Sequence[Record], record: Record) -> bool:
    """Whether a worker's record belongs to the newest generation of a supervised launch."""
    for earlier in reversed(launch):
        if earlier.get("event") == "command" and earlier.get("command") == "form":
            return earlier["assignment"]["generation"] == record.get("generation")
    return False


def _spans_of(spans: Sequence[Record], began: float, following: float) -> list[Record]:
    """Those of the process that began to train at a time; its startup ended right then."""
    ordered = sorted(spans, key=lambda span: span["start"])
    all_starts = [span["start"] for span in ordered if span["name"] == "startup"]
    starts = [start for start in all_starts if start <= began + _ROUNDING_S]
    next_starts = all_starts[len(starts) :]
    low = starts[-1] if starts else began
    high = min([following, *next_starts])
    return [span for span in ordered if low <= span["start"] < high]
