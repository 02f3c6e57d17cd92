"""What the events in a supervisor's journal mean for the ledger."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

from trainer.goodput.account import Failure
from trainer.goodput.books import Record
from trainer.goodput.deaths import death_of
from trainer.goodput.group import BEFORE_STEPS, SERVE
from trainer.goodput.phases import CHECKPOINT

if TYPE_CHECKING:
    from trainer.goodput.supervised import Ledger


def _started(ledger: Ledger, record: Record, at: float) -> None:
    if not record.get("continued"):
        ledger.begin(record.get("settings") or {}, at)


def _ticked(ledger: Ledger, record: Record, at: float) -> None:
    ledger.looks += 1


def _notice_given(ledger: Ledger, record: Record, at: float) -> None:
    ledger.draining = True


def _host_lost(ledger: Ledger, record: Record, at: float) -> None:
    gone = [name for name, worker in ledger.fleet.workers.items() if worker.host == record["host"]]
    for name in gone:
        del ledger.fleet.workers[name]
    members = ledger.generation.members if ledger.generation else {}
    broken = [members[name].rank for name in gone if name in members and not members[name].is_done]
    if broken and ledger.stage in ("training", "handing over"):
        ranks = ", ".join(map(str, sorted(broken)))
        what = f"{record['host']} was lost ({record['reason']}) with worker{'s' * (len(broken) > 1)} {ranks}"
        failure = Failure(at, ledger.number, "host", what, min(broken), host=record["host"])
        ledger.break_off(failure, was_silent=True)


def _worker_ready(ledger: Ledger, record: Record, at: float) -> None:
    if worker := ledger.fleet.workers.get(record["worker"]):
        worker.ready = True


def _worker_exited(ledger: Ledger, record: Record, at: float) -> None:
    name = record["worker"]
    worker = ledger.fleet.workers.pop(name, None)
    member = ledger.generation.members.get(name) if ledger.generation else None
    if worker is None or member is None or member.is_done:
        return
    if record["code"] == 0 and record["error"] is None:
        member.is_done = True
    elif ledger.stage == "training" or (ledger.stage == "handing over" and not worker.doomed):
        ledger.lose(member, death_of(record, at, ledger.number, member.rank, worker.host), was_silent=False)


def _progressed(ledger: Ledger, record: Record, at: float) -> None:
    generation = ledger.generation
    member = generation.members.get(record["worker"]) if generation else None
    if generation is None or member is None or record["generation"] != generation.number:
        return
    step, phase = record["step"], record["phase"]
    if ledger.stage == "gathering":  # on its way when the generation broke
        if phase not in BEFORE_STEPS:
            ledger.completed(step, at)
        return
    if phase == SERVE or member.replaces is not None:  # it takes no steps: the step that it reports says nothing
        member.phase = SERVE
        if phase == SERVE and member.replaces is not None and member.replaces.replaced_s is None:
            member.replaces.replaced_s = at - member.replaces.at
        return
    if phase == "step" and step == member.step and at == member.progressed_at:
        phase = member.phase  # of the same moment, this report may be the earlier one
    if step > member.step or phase != member.phase:
        member.progressed_at = at
    member.step, member.phase = max(step, member.step), phase
    if phase in ("form", "build", "restore"):
        return
    if generation.start_step is None:
        generation.start_step = step
        ledger.goes_on_from(step, at)
    if phase in BEFORE_STEPS:
        return
    ledger.took_steps(generation, step, phase, at)


def _rolled_back(ledger: Ledger, record: Record, at: float) -> None:
    ledger.rolled_back(record, at, ledger.number)


def _snapshot_taken(ledger: Ledger, record: Record, at: float) -> None:
    ledger.snapshot = (record["step"], at)


def _checkpoint_saved(ledger: Ledger, record: Record, at: float) -> None:
    stall, written_s = record.get("stall") or 0.0, record.get("duration") or 0.0
    ledger.timeline.charge(CHECKPOINT, 0, at - written_s - stall, at - written_s, stall)


def _completed(ledger: Ledger, record: Record, at: float) -> None:
    member = ledger.generation.members.get(record["worker"]) if ledger.generation else None
    if member is not None and record["generation"] == ledger.number:
        member.is_done = True
        ledger.completed(record["step"], at)
        if member.rank == 0:
            ledger.stage = "closing"


def _stop_requested(ledger: Ledger, record: Record, at: float) -> None:
    ledger.stage = "closing"


EVENTS: MappingProxyType[str, Callable[[Ledger, Record, float], None]] = MappingProxyType(
    {
        "supervisor_started": _started,
        "ticked": _ticked,
        "host_draining": _notice_given,
        "worker_leaving": _notice_given,
        "host_lost": _host_lost,
        "worker_ready": _worker_ready,
        "worker_exited": _worker_exited,
        "progressed": _progressed,
        "rolled_back": _rolled_back,
        "snapshot_taken": _snapshot_taken,
        "checkpoint_saved": _checkpoint_saved,
        "completed": _completed,
        "stop_requested": _stop_requested,
    }
)
"""By the name of the record."""
