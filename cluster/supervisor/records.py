"""Events and commands as JSON objects, the way the journal keeps them.

An event is `{"event": "worker_ready", "at": 3.5, ...}`, a command `{"event": "command", "command": "form", ...}`. The
journal adds keys of its own (`time`, `rank`, `pid`, ...): reading ignores every key that is not ours.
"""

import re
from dataclasses import MISSING, fields
from typing import Any, get_args

from cluster.assignment import Assignment, ErrorReport
from cluster.supervisor.commands import Command
from cluster.supervisor.events import Event

_NESTED = {"assignment": Assignment, "error": ErrorReport}


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


_EVENTS = {_snake_case(kind.__name__): kind for kind in get_args(Event)}
_COMMANDS = {_snake_case(kind.__name__): kind for kind in get_args(Command)}
_NAMES = {kind: name for name, kind in (_EVENTS | _COMMANDS).items()}


def to_record(item: Event | Command) -> dict[str, Any]:
    """An event or a command as a JSON object.

    >>> from cluster.supervisor.events import Ticked
    >>> to_record(Ticked(at=3.5))
    {'event': 'ticked', 'at': 3.5}
    """
    name = _NAMES[type(item)]
    record: dict[str, Any] = {"event": name} if name in _EVENTS else {"event": "command", "command": name}
    for field in fields(item):
        value = getattr(item, field.name)
        record[field.name] = value.to_json() if field.name in _NESTED and value is not None else value
    return record


def from_record(record: dict[str, Any]) -> Event | Command | None:
    """Reads what `to_record` gives; None for a record that is neither an event of the supervisor's nor a command.

    Raises:
        KeyError: a field is missing.
    """
    kind = _COMMANDS[record["command"]] if record.get("event") == "command" else _EVENTS.get(record.get("event", ""))
    if kind is None:
        return None
    # What an older version did not know yet has its default.
    known = [field for field in fields(kind) if field.name in record or field.default is MISSING]
    values = {field.name: record[field.name] for field in known}
    for name, nested in _NESTED.items():
        if values.get(name) is not None:
            values[name] = nested.from_json(values[name])
    return kind(**values)
