"""`journal.jsonl`: what happened to a run, one event a line, over all its processes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.observe.json_lines import JsonLines, read_lines


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The events of a journal, oldest first."""
    return [line for line in read_lines(path) if isinstance(line.get("event"), str)]


def next_generation(path: Path) -> int:
    """The generation of a process that is about to work on this run: one more than any before it, 0 for the first."""
    return max((event.get("generation", 0) for event in read_journal(path)), default=-1) + 1


class Journal:
    """Appends events to `journal.jsonl`; the file is only ever added to.

    Events of a run on one machine: started, resumed, evaluated, checkpoint_saved, checkpoint_failed,
    checkpoint_damaged, began_anew, records_skipped, rolled_back, exported, stopped, finished, failed. Events about a
    worker also carry `rank`, `pid` and `host`.

    Args:
        path: the file, created with its folder.
        generation: which membership of the run writes; see `next_generation`.
        on_failure: hears of the first failed write of a spell.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        path: Path,
        generation: int = 0,
        on_failure: Callable[[OSError], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.generation = generation
        self._clock = clock
        self._lines = JsonLines(path, on_failure)

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        """Writes one event with its time and generation.

        Args:
            event: its name, in the past tense, words joined by underscores.
            fields: whatever JSON holds; paths become strings, numpy scalars numbers.

        Returns:
            The record as written.
        """
        record = {"time": self._clock(), "event": event, "generation": self.generation, **fields}
        self._lines.append(record)
        return record

    def sync(self) -> None:
        """Puts the events on the disk. Raises OSError."""
        self._lines.sync()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._lines.close()
