"""What the ledger knows of the workers of a supervised run, from the events and commands in its journal."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.goodput.account import Failure
from trainer.goodput.phases import (
    BUILT,
    CHECKPOINT,
    CLOSING,
    COMPILE,
    EVALUATE,
    EXPORT,
    FIRST_STEP,
    FORMED,
    PRODUCTIVE,
    RESTORED,
    STARTUP,
)

# What the members of a generation report, in the order in which the last of them decides for all.
_REPORTED = ("form", "build", "restore", "compile", "export", "checkpoint", "evaluate", "step")
BEFORE_STEPS = _REPORTED[:4]
SERVE = "serve"  # of a member that takes no steps of its own
_LATER = {"export": EXPORT, "checkpoint": CHECKPOINT, "evaluate": EVALUATE, "step": PRODUCTIVE}
_AT_START = {"form": STARTUP, "build": STARTUP, "restore": STARTUP, "compile": COMPILE}
_AGAIN = {"form": FORMED, "build": BUILT, "restore": RESTORED, "compile": FIRST_STEP}


@dataclass(slots=True)
class WorkerFacts:
    """A worker process that has not ended.

    Attributes:
        host: where it runs.
        ready: whether it has imported everything.
        generation: the newest that it is a member of; None for a standby.
        doomed: whether it was killed or asked to stop.
    """

    host: str
    ready: bool = False
    generation: int | None = None
    doomed: bool = False


@dataclass(slots=True)
class MemberFacts:
    """How far a member is.

    Attributes:
        phase, step: as last reported; -1 before the first report.
        progressed_at: when either last changed.
        is_done: it has completed the training, or ended in order; nobody waits for it.
        replaces: the failure whose place it took while the generation went on; None: it was there from the beginning.
    """

    rank: int
    host: str
    progressed_at: float
    phase: str = "form"
    step: int = -1
    is_done: bool = False
    replaces: Failure | None = None


@dataclass(slots=True)
class GenerationFacts:
    """One membership.

    Attributes:
        restart: whether something was interrupted before it.
        start_step: from where it goes on; None while nobody has said.
        has_stepped: whether its first call is over.
    """

    number: int
    restart: bool
    members: dict[str, MemberFacts] = field(default_factory=dict)
    start_step: int | None = None
    has_stepped: bool = False

    @classmethod
    def of(cls, assignment: Mapping[str, Any], at: float, restart: bool) -> "GenerationFacts":
        """The generation of an assignment."""
        members = {one["worker"]: MemberFacts(one["rank"], one["host"], at) for one in assignment["members"]}
        return cls(assignment["generation"], restart, members)

    @property
    def phase(self) -> str:
        """What it is about: the member that is furthest behind decides."""
        busy = self._busy
        reported = next((phase for phase in _REPORTED if phase in busy), None)
        if reported is None:
            return PRODUCTIVE if busy else CLOSING
        if reported in BEFORE_STEPS:
            # A member that has not reported yet need not hold up what the others count as steps already.
            return (_AGAIN if self.restart and not self.has_stepped else _AT_START)[reported]
        return _LATER[reported]

    @property
    def _busy(self) -> set[str]:
        return {member.phase for member in self.members.values() if not member.is_done}

    @property
    def takes_steps(self) -> bool:
        """Whether nobody is on the way to its first step any more: survivors may be ready before who joins them."""
        return self._busy.isdisjoint(BEFORE_STEPS)

    @property
    def last_progress(self) -> float:
        """When a member last made progress."""
        return max(member.progressed_at for member in self.members.values())


class Fleet:
    """The workers that have not ended."""

    def __init__(self) -> None:
        self.workers: dict[str, WorkerFacts] = {}

    def num_ready(self, survivors: bool) -> int:
        """How many could be members of the next generation now."""
        return sum(
            worker.ready and not worker.doomed and (survivors or worker.generation is None)
            for worker in self.workers.values()
        )

    @property
    def num_starting(self) -> int:
        """How many will be standbys."""
        return sum(not worker.ready and not worker.doomed for worker in self.workers.values())

    def lives_of(self, names: Collection[str]) -> bool:
        """Whether one of these has not ended."""
        return any(name in self.workers for name in names)

    def states(self, generation: int) -> dict[str, int]:
        """How many workers are members, standbys, starting and ending."""
        counts = {"member": 0, "standby": 0, "starting": 0, "ending": 0}
        for worker in self.workers.values():
            if worker.doomed or (worker.generation is not None and worker.generation != generation):
                counts["ending"] += 1
            elif worker.generation is not None:
                counts["member"] += 1
            else:
                counts["standby" if worker.ready else "starting"] += 1
        return counts
