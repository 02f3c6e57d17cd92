"""What the supervisor learns: one class an event. Each carries when it happened, `at`, in monotonic seconds.

The clock is the run's: one that never goes back, also when another supervisor takes the run over on another machine.
"""

from dataclasses import dataclass

from cluster.assignment import ErrorReport


@dataclass(frozen=True)
class HostJoined:
    """A host offers room for workers.

    Attributes:
        slots: how many workers it can run at once.
    """

    at: float
    host: str
    slots: int


@dataclass(frozen=True)
class HostLost:
    """A host is gone, its workers and its memory with it.

    Whoever reports it answers for that: the host's agent has ended, and workers end with their agent.
    """

    at: float
    host: str
    reason: str


@dataclass(frozen=True)
class HostDraining:
    """A host has been given notice.

    Attributes:
        notice_s: seconds until it goes.
    """

    at: float
    host: str
    notice_s: float


@dataclass(frozen=True)
class WorkerReady:
    """A worker has imported everything and waits for an assignment: it is a standby now.

    Attributes:
        address: host and port that its peers will reach it at.
    """

    at: float
    worker: str
    host: str
    address: str


@dataclass(frozen=True)
class WorkerExited:
    """A worker's process has ended and has been reaped.

    Attributes:
        code: its exit code; None when a signal ended it.
        signal: the signal's number; None when it exited by itself.
        error: the exception it reported before; None when it reported none.
    """

    at: float
    worker: str
    host: str
    code: int | None
    signal: int | None
    error: ErrorReport | None


@dataclass(frozen=True)
class WorkerLeaving:
    """A worker has been told from outside to end, by a signal that leaves it time.

    Attributes:
        reason: by what: "SIGTERM".
        notice_s: seconds until whoever sent it may end the worker.
    """

    at: float
    worker: str
    reason: str
    notice_s: float


@dataclass(frozen=True)
class Progressed:
    """A member has completed steps, or has entered a phase.

    Attributes:
        step: completed steps.
        phase: "build", "restore", "compile", "step", "evaluate", "checkpoint" or "export"; "serve" of a member that
            does what the others send it, and makes no progress of its own.
    """

    at: float
    worker: str
    generation: int
    step: int
    phase: str


@dataclass(frozen=True)
class Heartbeat:
    """A worker's process lives. Says nothing of the progress of all.

    Attributes:
        arrived: steps for which this member has done its own part since its generation began, so that members can be
            compared; None: it does not count them.
        own_s: seconds that these have taken it, waiting for the others not counted.
    """

    at: float
    worker: str
    arrived: int | None = None
    own_s: float | None = None


@dataclass(frozen=True)
class SnapshotTaken:
    """A host's memory holds a whole snapshot.

    Attributes:
        generation: the generation that took it.
        step: the completed steps it contains.
    """

    at: float
    host: str
    generation: int
    step: int


@dataclass(frozen=True)
class CheckpointDurable:
    """A whole checkpoint is on durable storage.

    Attributes:
        generation: the generation that wrote it.
        step: the completed steps it contains.
    """

    at: float
    generation: int
    step: int


@dataclass(frozen=True)
class DamageFound:
    """A member has found that others compute something else than they must.

    Attributes:
        worker: who says so.
        generation: its.
        step: completed steps; the next one is not taken.
        suspects: the names of the workers that may have computed wrongly.
        is_proven: whether each of them has; otherwise one of them, and nobody can tell which.
        what: each of them did, for a person: "computed part 2 with another result than two others".
    """

    at: float
    worker: str
    generation: int
    step: int
    suspects: tuple[str, ...]
    is_proven: bool
    what: str


@dataclass(frozen=True)
class Completed:
    """A member is done with the whole training.

    Attributes:
        step: completed steps.
    """

    at: float
    worker: str
    generation: int
    step: int


@dataclass(frozen=True)
class PeerAccused:
    """A member has heard wrong data from another one: the generation is over for it, and it waits for the next.

    It says so again until it is told of another generation, because a message may be lost.

    Attributes:
        worker: who accuses.
        generation: in which.
        accused: the worker that the data came from.
        what: was wrong with it, for a person: "sent 4096 bytes that do not have their checksum".
    """

    at: float
    worker: str
    generation: int
    accused: str
    what: str


@dataclass(frozen=True)
class StopRequested:
    """A person, or whatever acts for one, wants the run to end with its state saved."""

    at: float
    reason: str


@dataclass(frozen=True)
class Ticked:
    """Time has passed. It comes about once a second, and right after hosts have joined.

    Every deadline is looked at then. New hosts are too, so that those that come together share the workers.
    """

    at: float


Event = (
    HostJoined
    | HostLost
    | HostDraining
    | WorkerReady
    | WorkerExited
    | WorkerLeaving
    | Progressed
    | Heartbeat
    | SnapshotTaken
    | CheckpointDurable
    | DamageFound
    | Completed
    | PeerAccused
    | StopRequested
    | Ticked
)
