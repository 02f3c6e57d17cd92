"""What one worker prints: to the log file of its generation and, line by line, to whoever listens."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_log = logging.getLogger(__name__)
# A line that does not end, such as a progress bar's, is passed on in pieces of this size.
_LONGEST_LINE = 8192


@dataclass(frozen=True)
class OutputLines:
    """Lines that a worker has printed.

    Attributes:
        worker: its name.
        rank: its rank in the generation; None: it is a standby.
        lines: without their ends.
    """

    worker: str
    rank: int | None
    lines: tuple[str, ...]


Sink = Callable[[OutputLines], object]


class WorkerOutput:
    """Writes a worker's output to `standby/<worker>.log`, and from its assignment on to `<generation>/<rank>.log`.

    A log that cannot be written, as on a full disk, is reported once and costs nothing but itself.

    Args:
        worker: its name.
        logs: the folder of all logs; folders are created where they are missing.
        sink: gets whole lines. It is called on the agent's thread and must not block.
    """

    def __init__(self, worker: str, logs: Path, sink: Sink | None = None) -> None:
        self._worker, self._logs, self._sink = worker, logs, sink
        self._rank: int | None = None
        self._rest = b""
        self._failed = False
        self._is_at_line_start = True
        self._file: BinaryIO | None = None
        self._open(logs / "standby" / f"{worker}.log")

    def assign(self, generation: int, rank: int) -> None:
        """Everything from here on belongs to this generation and rank."""
        self.close()
        self._rank = rank
        self._open(self._logs / str(generation) / f"{rank}.log")

    def write(self, data: bytes) -> None:
        """Takes what the worker has printed, cut anywhere."""
        self._append(data)
        if self._sink is None:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._pass(lines)
        if len(self._rest) > _LONGEST_LINE:
            self._pass_rest()

    def note(self, text: str) -> None:
        """Adds a line of the agent's own to the log."""
        self._append(f"{'' if self._is_at_line_start else chr(10)}[phalanx] {text}\n".encode())

    def close(self) -> None:
        """Passes on what did not end with a line's end, and closes the file."""
        self._pass_rest()
        if self._file is not None:
            self._file.close()

    def _open(self, path: Path) -> None:
        self.path = path
        self._is_at_line_start = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that the log is complete when the agent is killed. Added to, because a restarted supervisor
            # may hand a rank out twice.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            self._report(error)
            self._file = None

    def _append(self, data: bytes) -> None:
        try:
            if self._file is not None and data:
                self._file.write(data)
                self._is_at_line_start = data.endswith(b"\n")
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if not self._failed:
            _log.warning("%s cannot be written (%s): the output of worker %s is lost", self.path, error, self._worker)
        self._failed = True

    def _pass_rest(self) -> None:
        if self._rest:
            self._pass([self._rest])
            self._rest = b""

    def _pass(self, lines: list[bytes]) -> None:
        if self._sink is not None:
            texts = tuple(line.decode(errors="replace").rstrip("\r") for line in lines)
            self._sink(OutputLines(self._worker, self._rank, texts))
