"""The ledger of a run that a supervisor watches: record by record, from its journal or while it runs."""

import signal as signals
from collections.abc import Callable, Mapping
from typing import Any

from trainer.goodput.account import Account, Failure
from trainer.goodput.group import BEFORE_STEPS, Fleet, GenerationFacts, WorkerFacts
from trainer.goodput.phases import (
    BACK_OFF,
    CHECKPOINT,
    CLOSING,
    DETECTION,
    DOWN,
    ENDED,
    LOST,
    OF_A_FAILURE,
    PRODUCTIVE,
    REPEATED,
    RESOURCES,
    STANDBY,
    STARTUP,
)
from trainer.goodput.progress import StepTimes
from trainer.goodput.timeline import Timeline

Record = Mapping[str, Any]
_RUN_ENDS = "the run ends"
# The members saved all that they had done before they ended.
_PLANNED = ("preemption", "resize")


class Ledger:
    """Divides the wall time by what the supervisor's records say, each second into one phase.

    A supervisor's event counts at the time that it carries (`at`), which is when it happened; the journal may have
    written it later.

    Attributes:
        timeline: what is told so far.
        fleet: the workers.
        failures: in order.
        restarts: how many generations followed an interruption, by its cause.
        generation: the newest; None before the first of this launch.
        step_s: seconds a step, over the newest reports; None before there are enough.
        snapshot: step and time of the newest snapshot in a host's memory; None without one.
        reason: why the last process that trained alone failed, as it said; None: it did not say.
    """

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.fleet = Fleet()
        self.failures: list[Failure] = []
        self.restarts: dict[str, int] = {}
        self.generation: GenerationFacts | None = None
        self.step_s: float | None = None
        self.snapshot: tuple[int, float] | None = None
        self.reason: str | None = None
        self._steps = StepTimes()
        self._offset: float | None = None
        self._stage = "over"
        self._wished = True  # nothing was interrupted before the first launch
        self._outcome: str | None = None
        self._least = 1
        self._reform = False
        self._draining = False
        self._looks = 0
        self._handle: dict[str, Callable[[Record, float], None]] = {
            "supervisor_started": self._started,
            "host_draining": self._notice_given,
            "worker_leaving": self._notice_given,
            "host_lost": self._host_lost,
            "worker_ready": self._worker_ready,
            "worker_exited": self._worker_exited,
            "progressed": self._progressed,
            "snapshot_taken": self._snapshot_taken,
            "completed": self._completed,
            "stop_requested": self._stop_requested,
            "start_worker": self._start_worker,
            "form": self._form,
            "stop": self._stop,
            "kill": self._kill,
            "finish": self._finish,
            "ticked": self._ticked,
            "checkpoint_saved": self._checkpoint_saved,
            "rolled_back": self._rolled_back,
        }

    @property
    def is_open(self) -> bool:
        """Whether a launch is under way, as far as the records say."""
        return self._stage != "over"

    @property
    def steps(self) -> int:
        """Completed steps that count."""
        return self._steps.best

    def time_of(self, record: Record) -> float | None:
        """When something happened, in seconds since the epoch where the record says that, else by its own clock."""
        at, written = record.get("at"), record.get("time")
        if at is None:
            return written
        if self._offset is None:
            self._offset = 0.0 if written is None else written - at
        return at + self._offset

    def add(self, record: Record) -> None:
        """Takes in the next record of the journal; one that says nothing about time or workers is passed over."""
        name = str(record["command"] if record.get("event") == "command" else record.get("event"))
        is_new_launch = name == "supervisor_started" and not record.get("continued")
        if is_new_launch:
            self._offset = None
        at = self.time_of(record)
        if record.get("event") == "command" or at is None:
            at = self.timeline.end or 0.0  # what the event before it led to
        handle = self._handle.get(name)
        if not is_new_launch and ("at" in record or handle is not None):
            self._advance(at)
        if handle is not None:
            handle(record, at)

    def account(self, until: float | None = None) -> Account:
        """What is known so far.

        Args:
            until: the end of what is accounted for, if it is later than the last record of a launch under way.
        """
        if until is not None and self.is_open:
            self._advance(until)
        tiles = self.timeline.tiles
        return Account(
            tiles[0].start if tiles else None,
            self.timeline.end,
            self.timeline.skipped,
            tuple(tiles),
            tuple(self.failures),
            self._steps.best,
        )

    def _advance(self, at: float) -> None:
        if self.is_open:
            self.spend(at, self._phase())

    def spend(self, at: float, phase: str) -> None:
        """The time until then goes to a phase, and to the failure that is being mended if the phase is one of those."""
        added = self.timeline.extend(at, phase)
        failure = self._open_failure()
        if added and failure is not None and phase in OF_A_FAILURE:
            failure.phases[phase] = failure.phases.get(phase, 0.0) + added

    def _phase(self) -> str:
        if self._stage == "training":
            assert self.generation is not None
            return self.generation.phase
        if self._stage == "closing":
            busy = self.generation and self.generation.phase
            return busy if busy in REPEATED else CLOSING
        members = self.generation.members if self.generation else {}
        if self._stage == "handing over" and self.generation is not None:
            busy = self.generation.phase
            return busy if busy == PRODUCTIVE else ENDED
        if members and not self._reform and self.fleet.lives_of(members):
            return ENDED
        ready = self.fleet.num_ready(survivors=self._reform)
        wanted = len(members) or self._least
        # Before the supervisor's second look nobody can have started anything.
        has_looked = self.generation is not None or self._looks > 1
        if has_looked and ready + self.fleet.num_starting < wanted:
            return RESOURCES
        if self._open_failure() is None:
            return STARTUP
        return STANDBY if ready < wanted else BACK_OFF

    def _open_failure(self) -> Failure | None:
        return self.failures[-1] if self.failures and not self.failures[-1].is_over else None

    # What happened.

    def _started(self, record: Record, at: float) -> None:
        if record.get("continued"):
            return
        settings = record.get("settings") or {}
        self._least = (settings.get("sizes") or {}).get("min", 1)
        self._reform = bool(settings.get("reform", False))
        self.launched(at)
        self._stage = "gathering"

    def launched(self, at: float, reason: str = "the launching process ended") -> None:
        """A launch begins: of a supervisor, or of a process that trains alone.

        Args:
            at: when.
            reason: what ended the last one, unless somebody wished it.
        """
        if self.timeline.end is not None and self._outcome in ("stopped", "finished"):
            self.timeline.skip(at)
        elif self.timeline.end is not None:
            known = self.timeline.end
            self._interrupt(Failure(known, self._number(), "launcher", reason), known)
            added = self.timeline.extend(at, DOWN)
            self.failures[-1].phases[DOWN] = added
        self.timeline.begin(at)
        self.fleet, self.generation, self._outcome = Fleet(), None, None
        self._draining, self._looks = False, 0

    def _ticked(self, record: Record, at: float) -> None:
        self._looks += 1

    def _notice_given(self, record: Record, at: float) -> None:
        self._draining = True

    def _host_lost(self, record: Record, at: float) -> None:
        gone = [name for name, worker in self.fleet.workers.items() if worker.host == record["host"]]
        for name in gone:
            del self.fleet.workers[name]
        members = self.generation.members if self.generation else {}
        broken = [members[name].rank for name in gone if name in members and not members[name].is_done]
        if broken and self._stage in ("training", "handing over"):
            ranks = ", ".join(map(str, sorted(broken)))
            what = f"{record['host']} was lost ({record['reason']}) with worker{'s' * (len(broken) > 1)} {ranks}"
            self._break(Failure(at, self._number(), "host", what, min(broken), host=record["host"]), was_silent=True)

    def _worker_ready(self, record: Record, at: float) -> None:
        if worker := self.fleet.workers.get(record["worker"]):
            worker.ready = True

    def _worker_exited(self, record: Record, at: float) -> None:
        name = record["worker"]
        worker = self.fleet.workers.pop(name, None)
        member = self.generation.members.get(name) if self.generation else None
        if worker is None or member is None or member.is_done:
            return
        if record["code"] == 0 and record["error"] is None:
            member.is_done = True
        elif self._stage == "training" or (self._stage == "handing over" and not worker.doomed):
            error = record["error"] or {}
            failure = Failure(
                at,
                self._number(),
                "preemption" if record["signal"] == signals.SIGTERM else "failure",
                f"worker {member.rank} on {worker.host} {_what(record)}",
                member.rank,
                name,
                worker.host,
                record["signal"],
                record["code"],
                error.get("kind"),
            )
            self._break(failure, was_silent=False)

    def _progressed(self, record: Record, at: float) -> None:
        generation = self.generation
        member = generation.members.get(record["worker"]) if generation else None
        if generation is None or member is None or record["generation"] != generation.number:
            return
        step, phase = record["step"], record["phase"]
        if self._stage == "gathering":  # on its way when the generation broke
            if phase not in BEFORE_STEPS:
                self._steps.add(step, at)
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
            self.goes_on_from(step, at)
        if phase in BEFORE_STEPS:
            return
        before, began = self._steps.best, self._steps.time_of(self._steps.best)
        self._steps.add(step, at)
        if not generation.has_stepped:
            if step > (generation.start_step or 0) or phase == "step":
                self._first_step(generation, at)
        elif step > before and began is not None and at > began:
            step_s = (at - began) / (step - before)
            self.step_s = step_s if self.step_s is None else 0.9 * self.step_s + 0.1 * step_s

    def _first_step(self, generation: GenerationFacts, at: float) -> None:
        generation.has_stepped = True
        self.recovered()

    def recovered(self) -> None:
        """Steps are completed again."""
        if failure := self._open_failure():
            failure.is_over = True

    def goes_on_from(self, step: int, at: float) -> None:
        """Steps are taken from this one on: what was done after it is lost."""
        if failure := self._open_failure():
            failure.resumed_step, failure.steps_lost = step, max(0, self._steps.best - step)
            if failure.steps_lost or failure.cause not in _PLANNED:
                failure.lost_s += self._lose(step, failure.at)
        self._steps.restart(step, at)

    def completed(self, step: int, at: float) -> None:
        """Notes how far the training is."""
        self._steps.add(step, at)

    def _lose(self, step: int, until: float) -> float:
        since = self._steps.time_of(step)
        if since is None:
            if not self.timeline.tiles:
                return 0.0
            since = self.timeline.tiles[0].start
        return self.timeline.relabel(since, until, REPEATED, LOST)

    def _rolled_back(self, record: Record, at: float) -> None:
        step = record["step"]
        failure = Failure(at, self._number(), "bad step", str(record.get("reason")), is_over=True, source="memory")
        failure.resumed_step, failure.steps_lost = step, max(0, record.get("from_step", step) - step)
        failure.lost_s = self._lose(step, at)
        self.failures.append(failure)
        self._steps.restart(step, at)

    def _snapshot_taken(self, record: Record, at: float) -> None:
        self.snapshot = (record["step"], at)

    def _completed(self, record: Record, at: float) -> None:
        member = self.generation.members.get(record["worker"]) if self.generation else None
        if member is not None and self.generation and record["generation"] == self.generation.number:
            member.is_done = True
            self._steps.add(record["step"], at)
            if member.rank == 0:
                self._stage = "closing"

    def _stop_requested(self, record: Record, at: float) -> None:
        self._stage = "closing"

    # What was decided.

    def _start_worker(self, record: Record, at: float) -> None:
        self.fleet.workers[record["worker"]] = WorkerFacts(record["host"])

    def _form(self, record: Record, at: float) -> None:
        assignment = record["assignment"]
        if self.generation is None or self.generation.number != assignment["generation"]:
            if self._stage == "training":  # survivors go on in it, nobody had to end
                self._break(Failure(at, self._number(), self._cause(), "the group changes"), was_silent=False)
            failure = self._open_failure()
            if failure is not None:
                self.restarts[failure.cause] = self.restarts.get(failure.cause, 0) + 1
                failure.source = "memory" if assignment["restore"] or self._reform else "checkpoint"
            self.generation = GenerationFacts.of(assignment, at, restart=failure is not None)
            if self._stage != "closing":
                self._stage = "training"
            self._draining = False
        if worker := self.fleet.workers.get(record["worker"]):
            worker.generation = assignment["generation"]

    def _stop(self, record: Record, at: float) -> None:
        if worker := self.fleet.workers.get(record["worker"]):
            worker.doomed = True
        is_member = self.generation is not None and record["worker"] in self.generation.members
        if is_member and self._stage == "training":
            self._interrupt(Failure(at, self._number(), self._cause(), record["reason"]), at)
            self._stage = "handing over"

    def _kill(self, record: Record, at: float) -> None:
        name, reason = record["worker"], record["reason"]
        worker = self.fleet.workers.get(name)
        if worker is not None:
            worker.doomed = True
        member = self.generation.members.get(name) if self.generation else None
        if worker is None or member is None or member.is_done or worker.generation != self._number():
            return
        if reason == _RUN_ENDS:
            self._stage = "closing"
        elif self._stage == "training":
            what = f"worker {member.rank} on {worker.host}: {reason}"
            self._break(Failure(at, self._number(), "hang", what, member.rank, name, worker.host), was_silent=True)

    def _finish(self, record: Record, at: float) -> None:
        self.ended(record["outcome"])

    def ended(self, outcome: str) -> None:
        """A launch is over: "finished" or "stopped" as somebody wished, else something went wrong."""
        self._stage, self._outcome = "over", outcome

    def _checkpoint_saved(self, record: Record, at: float) -> None:
        stall, written_s = record.get("stall") or 0.0, record.get("duration") or 0.0
        self.timeline.charge(CHECKPOINT, 0, at - written_s - stall, at - written_s, stall)

    def _break(self, failure: Failure, was_silent: bool) -> None:
        """A generation cannot go on."""
        assert self.generation is not None
        known, last = failure.at, self.generation.last_progress
        self._interrupt(failure, known)
        if was_silent:
            # From the last progress on nothing was done that could be lost.
            failure.phases[DETECTION] = self.timeline.relabel(last, known, REPEATED, DETECTION)
        self._stage = "gathering"

    def _interrupt(self, failure: Failure, at: float) -> None:
        if (open_one := self._open_failure()) is not None:
            open_one.is_over = True  # what follows is the later one's
        self.failures.append(failure)

    def _cause(self) -> str:
        return "preemption" if self._draining else "resize"

    def _number(self) -> int:
        return self.generation.number if self.generation else 0


def _what(record: Record) -> str:
    if record["error"] is not None:
        return f"raised {record['error']['kind']}"
    if record["signal"] is not None:
        try:
            return f"was killed ({signals.Signals(record['signal']).name})"
        except ValueError:  # a real-time signal
            return f"was killed (signal {record['signal']})"
    return "is gone" if record["code"] is None else f"ended with exit code {record['code']}"
