"""Shows what workers print on a terminal: each line with its rank, in the rank's colour."""

import re
import threading
from collections import deque
from collections.abc import Iterable
from typing import TextIO

from cluster.worker_output import OutputLines

# Lines that wait for a slow terminal. A person cannot read more; all of them are in the logs.
_MOST_WAITING = 2000
_COLOURS = (36, 33, 35, 32, 34, 31)
_END_S = 2.0
# Five lines in which TensorFlow's collectives say that a peer is gone. The supervisor says it in one sentence, and the
# worker in another: these are only in the logs.
_PEER_IS_GONE = re.compile(
    r"E\d{4} .*(ring_alg|ring_reducer|base_collective_executor)\.cc:\d+\]"
    r"|Additional GRPC error information from remote target"
    r"|:UNKNOWN:Error received from peer"
)


class TerminalOutput:
    """A sink of agents that never blocks them, though the terminal may: it writes on a thread of its own.

    Args:
        stream: where to write; coloured when it is a terminal.
        standbys: whether lines of workers without a rank are shown too.
    """

    def __init__(self, stream: TextIO, *, standbys: bool = False) -> None:
        self._stream, self._standbys = stream, standbys
        self._is_terminal = stream.isatty()
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="terminal-output", daemon=True)
        self._thread.start()

    def __call__(self, output: OutputLines) -> None:
        """Takes lines; drops them when too many wait."""
        if output.rank is None and not self._standbys:
            return
        prefix = self._prefix(output)
        self._queue(f"{prefix} {line}\n" for line in output.lines if not _PEER_IS_GONE.match(line))

    def say(self, text: str) -> None:
        """Takes a sentence of the supervisor's, which must not wait for a terminal either."""
        self._queue([f"\x1b[33m{text}\x1b[0m\n" if self._is_terminal else f"{text}\n"])

    def _queue(self, lines: Iterable[str]) -> None:
        with self._changed:
            for line in lines:
                if len(self._waiting) < _MOST_WAITING:
                    self._waiting.append(line)
                else:
                    self._dropped += 1
            self._changed.notify()

    def close(self) -> None:
        """Writes what waits, within two seconds, and ends."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_END_S)

    def _prefix(self, output: OutputLines) -> str:
        if output.rank is None:
            return f"[{output.worker}]"
        text = f"[{output.rank}]"
        return f"\x1b[{_COLOURS[output.rank % len(_COLOURS)]}m{text}\x1b[0m" if self._is_terminal else text

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                text = "".join(self._waiting)
                self._waiting.clear()
                if self._dropped:
                    text += f"... {self._dropped} lines are only in the logs\n"
                    self._dropped = 0
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # the terminal is gone; the run goes on
                return
