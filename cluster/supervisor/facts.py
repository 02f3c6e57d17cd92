"""What an event means once the books are up to date: the states react to facts, not to messages."""

import signal
from dataclasses import dataclass
from functools import cache
from typing import Literal

from cluster.assignment import ErrorReport
from cluster.supervisor.events import WorkerExited
from cluster.supervisor.fleet import Worker

Cause = Literal["failure", "user_error", "preemption", "clean", "expected"]


@dataclass(frozen=True)
class Death:
    """A worker has ended for sure, or is being killed because it did not do its part.

    Attributes:
        worker: it; no longer in the fleet, or doomed.
        what: for a person: "was killed (SIGKILL)".
        cause: "expected" when it had been killed before, "clean" when it exited with code 0.
        error: the exception it reported.
    """

    worker: Worker
    what: str
    cause: Cause
    error: ErrorReport | None = None


@dataclass(frozen=True)
class WorkersDied:
    """Workers have died together.

    Attributes:
        deaths: one a worker, at least one.
        host: the lost host that took them along; None: a worker died by itself.
        reason: why the host was lost.
    """

    deaths: tuple[Death, ...]
    host: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class StandbyReady:
    """A worker waits for an assignment."""


@dataclass(frozen=True)
class MemberCompleted:
    """A member of the newest generation is done with the training.

    Attributes:
        worker: its name.
        step: completed steps.
    """

    worker: str
    step: int


@dataclass(frozen=True)
class BoundaryReached:
    """The state has just been saved: ending the generation now costs least."""


@dataclass(frozen=True)
class HostLeaves:
    """A host has been given notice.

    Attributes:
        host: its name.
        notice_s: seconds until it goes.
    """

    host: str
    notice_s: float


@dataclass(frozen=True)
class MemberLeaves:
    """A member of the newest generation has been given notice, and not its host.

    Attributes:
        worker: it.
        reason: by what.
        notice_s: seconds until it may be ended.
    """

    worker: Worker
    reason: str
    notice_s: float


@dataclass(frozen=True)
class MembersSuspected:
    """Members of the newest generation compute something else than others do.

    Attributes:
        workers: they.
        step: completed steps.
        is_proven: whether each of them does; otherwise one of them, and nobody can tell which.
        what: each of them did, for a person.
    """

    workers: tuple[Worker, ...]
    step: int
    is_proven: bool
    what: str


@dataclass(frozen=True)
class MemberAccused:
    """A member of the newest generation has heard wrong data from another one; neither has been told to end.

    Attributes:
        accuser: who says so.
        accused: from whom.
        what: was wrong, for a person.
    """

    accuser: Worker
    accused: Worker
    what: str


@dataclass(frozen=True)
class TimePassed:
    """Deadlines are to be looked at."""


Fact = (
    WorkersDied
    | StandbyReady
    | MemberCompleted
    | BoundaryReached
    | HostLeaves
    | MemberLeaves
    | MembersSuspected
    | MemberAccused
    | TimePassed
)


def death_of(worker: Worker, exited: WorkerExited, host_leaves: bool) -> Death:
    """What a worker's exit means.

    Args:
        worker: it, as it was.
        exited: the message.
        host_leaves: whether its host has been given notice; it may have been itself.
    """
    error, succeeded = exited.error, exited.code == 0 and exited.error is None
    if succeeded and worker.stop_by is not None:
        cause: Cause = "clean"
    elif worker.doomed_at is not None:
        cause = "expected"
    elif error is not None and error.is_user_error:
        cause = "user_error"
    elif host_leaves or worker.leaves or exited.signal == signal.SIGTERM:
        cause = "preemption"
    else:
        cause = "clean" if succeeded else "failure"
    return Death(worker, _describe(exited), cause, error)


def _describe(exited: WorkerExited) -> str:
    if exited.error is not None:
        return f"raised {exited.error.kind} at step {exited.error.step}: {exited.error.message}"
    if exited.signal is not None:
        return _killed_by(exited.signal)
    return "is gone" if exited.code is None else f"ended with exit code {exited.code}"


@cache  # a broken generation of ten thousand workers asks ten thousand times
def _killed_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"was killed ({name})"
