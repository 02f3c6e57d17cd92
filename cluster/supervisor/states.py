"""What the supervisor is about: one class a state, each with nothing but its data.

Gathering -> Running -> Ending -> Gathering ...      a failure
             Running -> HandingOver -> Gathering     a host that leaves, or a generation that grows
Gathering <-> Waiting                                too few hosts
any of them -> Stopping -> Ended
"""

from dataclasses import dataclass

from cluster.assignment import Member, SnapshotPlace
from cluster.supervisor.commands import Outcome


@dataclass(frozen=True)
class Gathering:
    """Workers are being started until enough of them are ready.

    Attributes:
        since: when the last generation ended, or the run began.
        not_before: no generation is formed before this time.
    """

    since: float
    not_before: float = 0.0


@dataclass(frozen=True)
class Waiting:
    """The hosts have too little room for the smallest generation.

    Attributes:
        since: when that was found.
        gathering: the state before.
    """

    since: float
    gathering: Gathering


@dataclass(frozen=True)
class Suspicion:
    """A member that seems to hang.

    Attributes:
        worker: its name.
        until: when it is killed; until then all write their stacks to their logs.
    """

    worker: str
    until: float


@dataclass(frozen=True)
class Vacancy:
    """A place in a generation that goes on without the member that had it.

    Attributes:
        member: the one that is gone. Whoever comes after it has its rank and its address.
        not_before: nobody takes the place before this time.
    """

    member: Member
    not_before: float


@dataclass(frozen=True)
class Running:
    """A generation trains.

    Attributes:
        generation: its number.
        members: in the order of their ranks.
        since: when it was formed.
        restored: the snapshot it went on from; None: it began from a checkpoint, or from nothing.
        suspicion: a member that seems to hang.
        growing_since: when it was found that it could grow.
        vacancies: places of members that are gone and can be replaced.
    """

    generation: int
    members: tuple[Member, ...]
    since: float
    restored: SnapshotPlace | None = None
    suspicion: Suspicion | None = None
    growing_since: float | None = None
    vacancies: tuple[Vacancy, ...] = ()


@dataclass(frozen=True)
class HandingOver:
    """All members save their state and end, so that the next generation has other members.

    Attributes:
        generation: its number.
        since: when they were asked.
    """

    generation: int
    since: float


@dataclass(frozen=True)
class Ending:
    """A broken generation: its members have been killed, and their exits are waited for.

    Attributes:
        generation: its number.
        since: when it broke.
        delay_s: seconds to wait, from then on, before the next one is formed.
    """

    generation: int
    since: float
    delay_s: float = 0.0


@dataclass(frozen=True)
class Stopping:
    """The run is over as soon as the last worker has ended.

    Attributes:
        outcome, reason: what will be said then.
        is_saved: whether a member of a run that is stopped has ended well: the state is saved.
    """

    outcome: Outcome
    reason: str
    is_saved: bool = False


@dataclass(frozen=True)
class Ended:
    """The run is over.

    Attributes:
        outcome, reason: how and why.
    """

    outcome: Outcome
    reason: str


State = Gathering | Waiting | Running | HandingOver | Ending | Stopping | Ended
