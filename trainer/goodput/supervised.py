"""The ledger of a run that a supervisor watches: record by record, from its journal or while it runs."""

from collections.abc import Mapping
from typing import Any

from trainer.goodput.account import REPLACEMENT, Account, Failure
from trainer.goodput.books import Books, Record
from trainer.goodput.decided import COMMANDS
from trainer.goodput.group import SERVE, Fleet, GenerationFacts, MemberFacts
from trainer.goodput.happened import EVENTS
from trainer.goodput.phases import (
    BACK_OFF,
    CLOSING,
    DETECTION,
    ENDED,
    PRODUCTIVE,
    REPEATED,
    RESOURCES,
    STANDBY,
    STARTUP,
)


class Ledger(Books):
    """Divides the wall time by what the supervisor's records say, each second into one phase.

    A supervisor's event counts at the time that it carries (`at`), which is when it happened; the journal may have
    written it later.

    Attributes:
        stage: "gathering", "training", "handing over", "closing" or "over".
        fleet: the workers.
        generation: the newest; None before the first of this launch.
        replacements: members that were replaced, or left a place, while their generation went on.
        step_s: seconds a step, over the newest reports; None before there are enough.
        snapshot: step and time of the newest snapshot in a host's memory; None without one.
        draining: whether a host or worker has been given notice since the generation was formed.
        looks: how often the supervisor has looked around in this launch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage = "over"
        self.fleet = Fleet()
        self.generation: GenerationFacts | None = None
        self.replacements = 0
        self.step_s: float | None = None
        self.snapshot: tuple[int, float] | None = None
        self.draining = False
        self.looks = 0
        self._offset: float | None = None
        self._least = 1
        self._reform = False
        self._replaceable_from: int | None = None
        # By rank: a place that a member has left in the generation that goes on, and what its death would be else.
        self._places: dict[int, tuple[Failure, str]] = {}

    @property
    def is_open(self) -> bool:
        """Whether a launch is under way, as far as the records say."""
        return self.stage != "over"

    @property
    def number(self) -> int:
        """Of the newest generation; 0 before the first."""
        return self.generation.number if self.generation else 0

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
        is_command = record.get("event") == "command"
        is_new_launch = record.get("event") == "supervisor_started" and not record.get("continued")
        if is_new_launch:
            self._offset = None
        at = self.time_of(record)
        if is_command or at is None:
            at = self.timeline.end or 0.0  # what the event before it led to
        handle = COMMANDS.get(record["command"]) if is_command else EVENTS.get(str(record.get("event")))
        if not is_new_launch and ("at" in record or handle is not None):
            self._advance(at)
        if handle is not None:
            handle(self, record, at)

    def account(self, until: float | None = None) -> Account:
        """What is known so far.

        Args:
            until: the end of what is accounted for, if it is later than the last record of a launch under way.
        """
        if until is not None and self.is_open:
            self._advance(until)
        return super().account()

    def _advance(self, at: float) -> None:
        if self.is_open:
            self.spend(at, self._phase())

    def _phase(self) -> str:
        if self.stage == "training":
            assert self.generation is not None
            return self.generation.phase
        if self.stage == "closing":
            busy = self.generation and self.generation.phase
            return busy if busy in REPEATED else CLOSING
        members = self.generation.members if self.generation else {}
        if self.stage == "handing over" and self.generation is not None:
            busy = self.generation.phase
            return busy if busy == PRODUCTIVE else ENDED
        if members and not self._reform and self.fleet.lives_of(members):
            return ENDED
        ready = self.fleet.num_ready(survivors=self._reform)
        wanted = len(members) or self._least
        # Before the supervisor's second look nobody can have started anything.
        has_looked = self.generation is not None or self.looks > 1
        if has_looked and ready + self.fleet.num_starting < wanted:
            return RESOURCES
        if self.mending is None:
            return STARTUP
        return STANDBY if ready < wanted else BACK_OFF

    def begin(self, settings: Mapping[str, Any], at: float) -> None:
        """A supervisor begins, with these settings."""
        self._least = (settings.get("sizes") or {}).get("min", 1)
        self._reform = bool(settings.get("reform", False))
        self._replaceable_from = settings.get("replaceable_from")
        self.launched(at)
        self.stage = "gathering"

    def launched(self, at: float, reason: str = "the launching process ended", generation: int = 0) -> None:
        """A launch begins."""
        super().launched(at, reason, generation or self.number)
        self.fleet, self.generation, self._places = Fleet(), None, {}
        self.draining, self.looks = False, 0

    def ended(self, outcome: str) -> None:
        """A launch is over."""
        super().ended(outcome)
        self.stage = "over"

    def form(self, assignment: Mapping[str, Any], at: float) -> None:
        """A generation is formed."""
        failure = self.mending
        if failure is not None:
            self.restarts[failure.cause] = self.restarts.get(failure.cause, 0) + 1
            failure.source = "memory" if assignment["restore"] or self._reform else "checkpoint"
        self.generation = GenerationFacts.of(assignment, at, restart=failure is not None)
        if self.stage != "closing":
            self.stage = "training"
        self.draining, self._places = False, {}

    def took_steps(self, generation: GenerationFacts, step: int, phase: str, at: float) -> None:
        """A member reports that it has completed so many steps in all."""
        before, began = self.steps, self._steps.time_of(self.steps)
        self.completed(step, at)
        if not generation.has_stepped:
            if step > (generation.start_step or 0) or (phase == "step" and generation.takes_steps):
                generation.has_stepped = True
                self.recovered()
        elif step > before and began is not None and at > began:
            step_s = (at - began) / (step - before)
            self.step_s = step_s if self.step_s is None else 0.9 * self.step_s + 0.1 * step_s

    def lose(self, member: MemberFacts, failure: Failure, was_silent: bool) -> None:
        """A member is lost. Who serves the others may be replaced while they go on; else the generation is broken."""
        first = self._replaceable_from
        if self.stage != "training" or first is None or member.rank < first:
            self.break_off(failure, was_silent)
            return
        member.is_done = True
        self._places[member.rank] = failure, failure.cause
        self._leave_place(failure)

    def _leave_place(self, failure: Failure) -> None:
        failure.cause, failure.is_over, failure.steps_lost = REPLACEMENT, True, 0
        self.failures.append(failure)
        self.replacements += 1

    def gives_up_with_place(self, at: float) -> bool:
        """Members are killed: where one has left its place in this very moment, the generation does not go on."""
        for rank, (failure, cause) in self._places.items():
            if failure.at == at and self.failures[-1] is failure:
                del self._places[rank]
                self.failures.pop()
                self.replacements -= 1
                failure.cause, failure.is_over, failure.steps_lost = cause, False, None
                self.break_off(failure, was_silent=cause == "hang")
                return True
        return False

    def fill_place(self, assignment: Mapping[str, Any], worker: str, at: float) -> None:
        """Another worker takes the place of a lost member in the generation that goes on."""
        assert self.generation is not None
        rank, members = assignment["rank"], self.generation.members
        old = next(name for name, member in members.items() if member.rank == rank)
        last = members.pop(old)
        failure, _ = self._places.pop(rank, (None, ""))
        if failure is None:  # it ended as if all were done
            what = f"worker {rank} on {last.host} ended before the training was complete"
            failure = Failure(at, self.number, "", what, rank, old, last.host)
            self._leave_place(failure)
        # The others wait for nothing that it does: neither its phase nor its coming is progress of theirs.
        members[worker] = MemberFacts(rank, last.host, last.progressed_at, SERVE, replaces=failure)

    def break_off(self, failure: Failure, was_silent: bool) -> None:
        """A generation cannot go on."""
        assert self.generation is not None
        known, last = failure.at, self.generation.last_progress
        self.interrupted(failure)
        if was_silent:
            # From the last progress on nothing was done that could be lost.
            failure.phases[DETECTION] = self.timeline.relabel(last, known, REPEATED, DETECTION)
        self.stage = "gathering"
