"""Running the supervisor again over a journal: to check that it decides the same, and to take a run over.

A journal holds, in this order: a `supervisor_started` record with the settings, then each event, followed by the
commands it led to. A supervisor that died may have left the commands of its last event out; the one that takes over
adds them after a `supervisor_started` record of its own. Records of other kinds may stand anywhere between.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cluster.supervisor.commands import Command
from cluster.supervisor.records import from_record, to_record
from cluster.supervisor.settings import Settings
from cluster.supervisor.supervisor import Supervisor

_STARTED = "supervisor_started"


class JournalError(Exception):
    """The journal cannot be replayed. The message is one sentence for the user."""


@dataclass(frozen=True)
class Difference:
    """Where a replay parts from the journal.

    Attributes:
        number: the record's place in the journal, from 1; one more than the last when a command is missing at the end.
        recorded: the command that the journal has there; None: it goes on with an event, though a command is due.
        replayed: the command that the supervisor gives today; None: it gives no more.
    """

    number: int
    recorded: Command | None
    replayed: Command | None

    def __str__(self) -> str:
        return f"record {self.number}: the journal has {_name(self.recorded)}, the replay {_name(self.replayed)}"


@dataclass(frozen=True)
class Takeover:
    """A supervisor that knows all that its predecessor did.

    Attributes:
        supervisor: it.
        unrecorded: commands that the predecessor did not live to record: they are to be recorded and carried out.
            Commands that it recorded but may not have given need no care: what matters is given again in time.
    """

    supervisor: Supervisor
    unrecorded: list[Command]


def started_record(settings: Settings, continued: bool) -> dict[str, Any]:
    """The record that a supervisor begins with.

    Args:
        settings: its settings.
        continued: whether it takes over what the journal recorded before; otherwise it begins anew.
    """
    return {"event": _STARTED, "continued": continued, "settings": settings.to_json()}


def is_start(record: dict[str, Any]) -> bool:
    """Whether a new supervisor begins with this record that knows nothing of what was recorded before."""
    return record.get("event") == _STARTED and not record["continued"]


def first_difference(records: Iterable[dict[str, Any]]) -> Difference | None:
    """Replays a journal.

    Args:
        records: its records, oldest first.

    Returns:
        The first command that the supervisor does not give today as it is recorded; None when all are the same.

    Raises:
        JournalError: an event comes before any settings.
    """
    return _replay(records)[0]


def take_over(records: Iterable[dict[str, Any]]) -> Takeover:
    """Brings a new supervisor to where the recorded one was.

    Raises:
        JournalError: there is none, or this version of the supervisor decides otherwise than the recorded one did.
    """
    difference, supervisor, due = _replay(records)
    if difference is not None:
        raise JournalError(
            f"the journal was written by a supervisor that decides otherwise ({difference}): resume the run instead, "
            "which starts a new generation from its newest checkpoint"
        )
    if supervisor is None:
        raise JournalError("the journal holds no supervisor's settings: resume the run instead")
    return Takeover(supervisor, due)


def _replay(records: Iterable[dict[str, Any]]) -> tuple[Difference | None, Supervisor | None, list[Command]]:
    supervisor: Supervisor | None = None
    due: deque[Command] = deque()
    for number, record in enumerate(records, start=1):
        if record.get("event") == _STARTED:
            if not record["continued"]:
                supervisor = Supervisor(Settings.from_json(record["settings"]))
                due.clear()
            continue
        item = from_record(record)
        if item is None:
            continue
        if isinstance(item, Command):
            replayed = due.popleft() if due else None
            # Compared as records: what JSON cannot tell apart is the same.
            if replayed is None or to_record(replayed) != to_record(item):
                return Difference(number, item, replayed), supervisor, []
        elif due:
            return Difference(number, None, due[0]), supervisor, []
        elif supervisor is None:
            raise JournalError(
                f"record {number} of the journal is an event, but no supervisor's settings come before it"
            )
        else:
            due.extend(supervisor.handle(item))
    return None, supervisor, list(due)


def _name(command: Command | None) -> str:
    return "no command" if command is None else repr(command)
