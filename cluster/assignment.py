"""What a worker must know to take part: who it is in this generation, who its peers are and where its state is.

An assignment is all that the cluster tells a worker, and an error report all that it learns of a worker's exception.
Both cross processes as JSON: `to_json` gives plain dicts and lists, `from_json` reads them back.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """One worker of a generation.

    Attributes:
        worker: its name, never used twice in a run.
        host: the host it runs on.
        rank: its place among the members, from 0.
        address: host and port that its peers reach it at: `"10.0.0.1:4711"`, `"[::1]:4711"`.
    """

    worker: str
    host: str
    rank: int
    address: str


@dataclass(frozen=True)
class SnapshotPlace:
    """A snapshot, and the host whose memory holds it.

    Attributes:
        step: the completed steps that the snapshot contains.
        host: the host.
    """

    step: int
    host: str


@dataclass(frozen=True)
class Assignment:
    """One worker's part in one generation.

    Attributes:
        generation: its number, from 1; each generation has a higher one than the last.
        rank: the receiver's rank.
        members: all members, in the order of their ranks.
        restore: the snapshot to go on from; None: the newest checkpoint, which the worker finds itself.

    >>> members = (Member("w1", "a", 0, "10.0.0.1:4711"), Member("w2", "b", 1, "10.0.0.2:4711"))
    >>> assignment = Assignment(generation=3, rank=1, members=members, restore=SnapshotPlace(480, "a"))
    >>> assignment.num_workers, assignment.chief.worker, assignment.itself.worker
    (2, 'w1', 'w2')
    >>> Assignment.from_json(assignment.to_json()) == assignment
    True
    """

    generation: int
    rank: int
    members: tuple[Member, ...]
    restore: SnapshotPlace | None

    @property
    def num_workers(self) -> int:
        """How many members the generation has."""
        return len(self.members)

    @property
    def chief(self) -> Member:
        """The member of rank 0."""
        return self.members[0]

    @property
    def itself(self) -> Member:
        """The receiver."""
        return self.members[self.rank]

    def to_json(self) -> dict[str, Any]:
        """The assignment as a JSON object: dicts, lists, strings and numbers."""
        return asdict(self) | {"members": [asdict(member) for member in self.members]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Assignment":
        """Reads what `to_json` gives.

        Raises:
            KeyError, TypeError: a field is missing or has the wrong type.
        """
        restore = content["restore"]
        return cls(
            generation=content["generation"],
            rank=content["rank"],
            members=tuple(Member(**member) for member in content["members"]),
            restore=None if restore is None else SnapshotPlace(**restore),
        )


@dataclass(frozen=True)
class ErrorReport:
    """An exception that ended a worker, as the worker told it.

    Attributes:
        kind: the exception's class name.
        message: what it says.
        traceback: the whole traceback, for the person.
        step: the completed steps when it was raised.
        is_user_error: whether it came from the user's code (model, data, task), so that a retry meets it again.
    """

    kind: str
    message: str
    traceback: str
    step: int
    is_user_error: bool

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ErrorReport":
        """Reads what `to_json` gives.

        Raises:
            TypeError: a field is missing, or there is one too many.
        """
        return cls(**content)
