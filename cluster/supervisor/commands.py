"""What the supervisor wants done: one class a command. The agents of the hosts carry them out."""

from dataclasses import dataclass
from typing import Literal

from cluster.assignment import Assignment

Outcome = Literal["finished", "stopped", "failed", "no_resources"]


@dataclass(frozen=True)
class StartWorker:
    """Start a worker process on a host. It imports everything, says that it is ready and waits."""

    worker: str
    host: str


@dataclass(frozen=True)
class Form:
    """Hand a worker its part in a generation."""

    worker: str
    assignment: Assignment


@dataclass(frozen=True)
class Stop:
    """Ask a worker to save its state and to end."""

    worker: str
    reason: str


@dataclass(frozen=True)
class Kill:
    """End a worker's process at once, and say `WorkerExited`.

    Said again until the exit is known, because a message may be lost: an agent that has no such process (any more)
    answers `WorkerExited` all the same, and must not start one of that name when the order to start it comes later.
    """

    worker: str
    reason: str


@dataclass(frozen=True)
class DumpStacks:
    """Have a worker write the stacks of all its threads to its log."""

    worker: str


@dataclass(frozen=True)
class ReleaseHost:
    """Give a host back: the run needs it no longer, or its agent does not answer. `HostLost` follows."""

    host: str


@dataclass(frozen=True)
class Announce:
    """Tell the person, in one sentence."""

    text: str


@dataclass(frozen=True)
class Finish:
    """The run is over.

    Attributes:
        outcome: how.
        reason: why, in one sentence; after an error of the user's code its traceback comes first, on lines of its own.
    """

    outcome: Outcome
    reason: str


Command = StartWorker | Form | Stop | Kill | DumpStacks | ReleaseHost | Announce | Finish
