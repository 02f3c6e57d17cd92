"""What a worker's reports mean to the supervisor."""

from typing import Any

from cluster.assignment import ErrorReport
from cluster.message_lines import BadMessage
from cluster.supervisor.events import (
    CheckpointDurable,
    Completed,
    DamageFound,
    Event,
    Heartbeat,
    PeerAccused,
    Progressed,
    SnapshotTaken,
    WorkerLeaving,
    WorkerReady,
)


def read_report(message: dict[str, Any], *, at: float, worker: str, host: str) -> Event | ErrorReport:
    """The event that a worker's message reports, or the error that will end it.

    Raises:
        BadMessage: it is none of a worker's messages.

    >>> read_report({"type": "completed", "generation": 2, "step": 9}, at=1.5, worker="w1", host="a")
    Completed(at=1.5, worker='w1', generation=2, step=9)
    >>> found = {"suspects": ["w2"], "is_proven": True, "what": "computes wrongly"}
    >>> read_report({"type": "damage", "generation": 2, "step": 9, **found}, at=1.5, worker="w1", host="a").suspects
    ('w2',)
    """
    try:
        match message["type"]:
            case "heartbeat":
                if "arrived" not in message:
                    return Heartbeat(at, worker)
                return Heartbeat(at, worker, _number(message, "arrived"), float(message["own_s"]))
            case "progress":
                generation, step = _number(message, "generation"), _number(message, "step")
                return Progressed(at, worker, generation, step, _text(message, "phase"))
            case "ready":
                return WorkerReady(at, worker, host, _text(message, "address"))
            case "leaving":
                return WorkerLeaving(at, worker, _text(message, "reason"), float(message["notice_s"]))
            case "snapshot":
                return SnapshotTaken(at, host, _number(message, "generation"), _number(message, "step"))
            case "checkpoint":
                return CheckpointDurable(at, _number(message, "generation"), _number(message, "step"))
            case "damage":
                return DamageFound(
                    at,
                    worker,
                    _number(message, "generation"),
                    _number(message, "step"),
                    tuple(map(str, message["suspects"])),
                    bool(message["is_proven"]),
                    _text(message, "what"),
                )
            case "completed":
                return Completed(at, worker, _number(message, "generation"), _number(message, "step"))
            case "accusation":
                generation, accused = _number(message, "generation"), _text(message, "accused")
                return PeerAccused(at, worker, generation, accused, _text(message, "what"))
            case "error":
                return ErrorReport(
                    kind=_text(message, "kind"),
                    message=_text(message, "message"),
                    traceback=_text(message, "traceback"),
                    step=_number(message, "step"),
                    is_user_error=bool(message["is_user_error"]),
                )
    except KeyError:
        pass
    raise BadMessage(f"not a worker's message: {str(message)[:200]}")


def _number(message: dict[str, Any], name: str) -> int:
    if not isinstance(message[name], int):
        raise KeyError(name)
    return message[name]


def _text(message: dict[str, Any], name: str) -> str:
    if not isinstance(message[name], str):
        raise KeyError(name)
    return message[name]
