"""A member that died, as a failure of the account, from the supervisor's record of its end."""

import signal as signals

from trainer.goodput.account import Failure
from trainer.goodput.books import Record


def death_of(record: Record, at: float, generation: int, rank: int, host: str) -> Failure:
    """The failure that a member's end is.

    Args:
        record: "worker_exited".
        at: when.
        generation: which it was a member of.
        rank: its own there.
        host: where it ran.
    """
    return Failure(
        at,
        generation,
        "preemption" if record["signal"] == signals.SIGTERM else "failure",
        f"worker {rank} on {host} {_what(record)}",
        rank,
        record["worker"],
        host,
        record["signal"],
        record["code"],
        (record["error"] or {}).get("kind"),
    )


def _what(record: Record) -> str:
    if record["error"] is not None:
        return f"raised {record['error']['kind']}"
    if record["signal"] is not None:
        try:
            return f"was killed ({signals.Signals(record['signal']).name})"
        except ValueError:  # a real-time signal
            return f"was killed (signal {record['signal']})"
    return "is gone" if record["code"] is None else f"ended with exit code {record['code']}"
