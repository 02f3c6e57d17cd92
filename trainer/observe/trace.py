"""Where the time of one worker goes: named spans, one JSON line each, in `trace/<rank>.jsonl`."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer.observe.json_lines import JsonLines, read_lines

FLUSH_INTERVAL_S = 1.0
DETAILED_SPANS = 20_000

_Finished = tuple[str, float, float, int | None]  # name, start, duration, step


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The spans of one rank in the order in which they ended; the line that a kill has torn is left out.

    A line has `name`, `start` (seconds since the epoch), `duration` (seconds), `rank` and, where it belongs to one,
    `step`. A line with `count` stands for so many spans of one name within a second: `duration` is their sum and
    `end` when the last of them ended.
    """
    return [line for line in read_lines(path) if "start" in line and "duration" in line]


class Span:
    """One phase in progress; a context manager. Its times are taken even if the phase raises."""

    __slots__ = ("_began", "_finished", "_start", "name", "step")

    def __init__(self, finished: list[_Finished], name: str, step: int | None) -> None:
        self.name = name
        self.step = step
        self._finished = finished

    def __enter__(self) -> "Span":
        self._start = time.time()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.append((self.name, self._start, time.perf_counter() - self._began, self.step))


class Trace:
    """Collects spans in memory (a microsecond each) and writes them once a second from a thread of its own.

    A killed process loses the last second at most. A run of days has more spans than anybody will look at: after
    `detailed` spans those of one name within a second become one line with their number and their total time, so that
    the totals stay exact and the file grows by a few lines a second.

    Args:
        path: `trace/<rank>.jsonl`, created with its folder; spans of an earlier process stay.
        rank: the worker's rank.
        on_failure: hears of the first failed write of a spell.
        detailed: how many spans get a line of their own.
    """

    def __init__(
        self,
        path: Path,
        rank: int = 0,
        on_failure: Callable[[OSError], None] | None = None,
        detailed: int = DETAILED_SPANS,
    ) -> None:
        self.path = path
        self.rank = rank
        self._lines = JsonLines(path, on_failure)
        self._finished: list[_Finished] = []
        self._detail_left = detailed
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._flush_regularly, name="trace", daemon=True)
        self._thread.start()

    def span(self, name: str, step: int | None = None) -> Span:
        """Times the block under it: `with trace.span("evaluate", step=500): ...`."""
        return Span(self._finished, name, step)

    def add(self, name: str, start: float, duration: float, step: int | None = None) -> None:
        """Adds a span timed elsewhere: `start` in seconds since the epoch, `duration` in seconds."""
        self._finished.append((name, start, duration, step))

    def flush(self) -> None:
        """Writes the spans that have ended."""
        with self._writing:
            count = len(self._finished)  # others may append meanwhile: only these are taken
            if not count:
                return
            spans = self._finished[:count]
            del self._finished[:count]
            detailed, rest = spans[: self._detail_left], spans[self._detail_left :]
            self._detail_left -= len(detailed)
            self._lines.append_bytes(b"".join(self._line(*span) for span in detailed) + self._bundles(rest))

    def _line(self, name: str, start: float, duration: float, step: int | None, more: str = "") -> bytes:
        place = "" if step is None else f'"step": {step}, '
        return (
            f'{{"name": {json.dumps(name)}, "start": {start:.6f}, "duration": {duration:.6f}, '
            f'{place}{more}"rank": {self.rank}}}\n'
        ).encode()

    def _bundles(self, spans: list[_Finished]) -> bytes:
        named: dict[str, list[_Finished]] = {}
        for span in spans:
            named.setdefault(span[0], []).append(span)
        lines = []
        for name, group in named.items():
            _, start, duration, step = group[0]
            more = ""
            if len(group) > 1:
                more = f'"count": {len(group)}, "end": {max(s[1] + s[2] for s in group):.6f}, '
                start, duration = min(s[1] for s in group), sum(s[2] for s in group)
            lines.append(self._line(name, start, duration, step, more))
        return b"".join(lines)

    def _flush_regularly(self) -> None:
        while not self._closed.wait(FLUSH_INTERVAL_S):
            self.flush()

    def close(self) -> None:
        """Writes the rest and ends the thread; a second call does nothing."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join()
            self.flush()
            self._lines.close()
