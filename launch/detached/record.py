"""What the keeper of a run has to remember, also when it is itself started again: `detached.json` in the run folder."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trainer.atomic_file import write_whole

_NAME = "detached.json"


@dataclass(frozen=True)
class KeeperRecord:
    """How the launchers of a detached run have fared.

    Attributes:
        starts: launchers that were started.
        futile: deaths in a row with which the run got no further; the first of a row counts.
        step: how far the run was at the newest death; -1: none.
        death: how the last launcher died, and when the run was there; None: none has died.
        exit_code: with which the run ended; None: it goes on.
        reason: why it was given up; None: it was not.
    """

    starts: int = 0
    futile: int = 0
    step: int = -1
    death: str | None = None
    exit_code: int | None = None
    reason: str | None = None

    @property
    def restarts(self) -> int:
        """How often a launcher was started again."""
        return max(0, self.starts - 1)

    def write(self, run: Path) -> None:
        """Stores it.

        Raises:
            OSError: the run folder cannot be written.
        """
        write_whole(run / _NAME, json.dumps(asdict(self), indent=2) + "\n")


def read_record(run: Path) -> KeeperRecord | None:
    """The record of a run; None where it was never detached."""
    try:
        content = json.loads((run / _NAME).read_text(encoding="utf-8"))
        return KeeperRecord(**{field.name: content[field.name] for field in fields(KeeperRecord)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
