"""What the supervisor's commands mean for the ledger. A command happens when the event before it does."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

from trainer.goodput.account import Failure
from trainer.goodput.books import Record
from trainer.goodput.group import WorkerFacts

if TYPE_CHECKING:
    from trainer.goodput.supervised import Ledger

_RUN_ENDS = "the run ends"


def _start_worker(ledger: Ledger, record: Record, at: float) -> None:
    ledger.fleet.workers[record["worker"]] = WorkerFacts(record["host"])


def _form(ledger: Ledger, record: Record, at: float) -> None:
    assignment = record["assignment"]
    generation = ledger.generation
    if generation is None or generation.number != assignment["generation"]:
        if ledger.stage == "training":  # survivors go on in it, nobody had to end
            ledger.break_off(Failure(at, ledger.number, _cause(ledger), "the group changes"), was_silent=False)
        ledger.form(assignment, at)
    elif record["worker"] not in generation.members:
        ledger.fill_place(assignment, record["worker"], at)
    if worker := ledger.fleet.workers.get(record["worker"]):
        worker.generation = assignment["generation"]


def _stop(ledger: Ledger, record: Record, at: float) -> None:
    if worker := ledger.fleet.workers.get(record["worker"]):
        worker.doomed = True
    is_member = ledger.generation is not None and record["worker"] in ledger.generation.members
    if is_member and ledger.stage == "training":
        ledger.interrupted(Failure(at, ledger.number, _cause(ledger), record["reason"]))
        ledger.stage = "handing over"


def _kill(ledger: Ledger, record: Record, at: float) -> None:
    name, reason = record["worker"], record["reason"]
    worker = ledger.fleet.workers.get(name)
    if worker is not None:
        worker.doomed = True
    member = ledger.generation.members.get(name) if ledger.generation else None
    if worker is None or member is None or member.is_done or worker.generation != ledger.number:
        return
    if reason == _RUN_ENDS:
        ledger.stage = "closing"
    elif ledger.stage == "training" and not ledger.gives_up_with_place(at):
        what = f"worker {member.rank} on {worker.host}: {reason}"
        failure = Failure(at, ledger.number, "hang", what, member.rank, name, worker.host)
        ledger.lose(member, failure, was_silent=True)


def _finish(ledger: Ledger, record: Record, at: float) -> None:
    ledger.ended(record["outcome"])


def _cause(ledger: Ledger) -> str:
    return "preemption" if ledger.draining else "resize"


COMMANDS: MappingProxyType[str, Callable[[Ledger, Record, float], None]] = MappingProxyType(
    {"start_worker": _start_worker, "form": _form, "stop": _stop, "kill": _kill, "finish": _finish}
)
"""By the name of the command."""
