"""Appends lines to a file from a thread of its own, so that nobody who answers requests waits for a disk."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("phalanx.serving")
_GATHERS_S = 0.1
_LOOKS_S = 1.0
_MOST_WAITING = 8 << 20  # characters of lines: some 20,000
_STANDARD_ERROR = 2


class LineWriter:
    """Writes what it is given a tenth of a second later; at the end, all of it.

    While the file cannot be written, say because the disk is full, lines are lost and counted, and that is said once.

    Args:
        path: Created, readable by its owner alone; one that is moved away is begun anew. None: standard error.
        lost: Makes the line that says how many lines are missing before it.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path | None, lost: Callable[[int], str]) -> None:
        self._path, self._lost_line = path, lost
        self._name = "standard error" if path is None else str(path)
        self._lock, self._some, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._waiting: list[str] = []
        self._waiting_size, self._lost = 0, 0
        self._torn = b""  # the end of a line whose beginning is in the file
        self._failed = False
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Takes a line, which ends with a line break. From any thread; costs no system call but the first of many."""
        with self._lock:
            if self._waiting_size + len(line) > _MOST_WAITING:
                self._lost += 1
                return
            self._waiting.append(line)
            self._waiting_size += len(line)
            first = len(self._waiting) == 1
        if first:
            self._some.set()

    def close(self, patience_s: float = 5.0) -> None:
        """Writes what waits. A pipe that nobody reads is given up."""
        self._closing.set()
        self._some.set()
        self._thread.join(patience_s)
        if self._path is not None and not self._thread.is_alive():
            os.close(self._file)

    def _open(self) -> int:
        self._looked_at = time.monotonic()
        if self._path is None:
            return _STANDARD_ERROR
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(_GATHERS_S)
            self._some.clear()
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        with self._lock:
            if not self._waiting and not (self._lost and self._closing.is_set()):
                return
            lines, self._waiting, self._waiting_size = self._waiting, [], 0
            lost, self._lost = self._lost, 0
        missing, error = len(lines), self._follow()
        if error is None and lost:
            unsaid, error = self._append(self._lost_line(lost).encode())
            lost = lost if unsaid else 0
        if error is None:
            missing, error = self._append("".join(lines).encode())
        if error is None:
            self._failed = False
            return
        with self._lock:
            self._lost += lost + missing
        if not self._failed:
            self._failed = True
            log.error("%s cannot be written (%s): lines of the log are lost meanwhile", self._name, error.strerror)

    def _append(self, lines: bytes) -> tuple[int, OSError | None]:
        """Writes lines; returns how many of them the file will not have, and why.

        One that was written in part is none of them: its end comes first at the next attempt, so lines stay whole.
        """
        content, at = memoryview(self._torn + lines), 0
        try:
            while at < len(content):
                at += os.write(self._file, content[at:])
        except OSError as error:
            text = bytes(content)
            begun = text[at - 1 : at] != b"\n" if at else bool(self._torn)
            end = text.index(b"\n", at) + 1 if begun else at
            self._torn = text[at:end]
            return text.count(b"\n", end), error
        self._torn = b""
        return 0, None

    def _follow(self) -> OSError | None:
        """Begins a new file where the old one has been moved away; returns why it cannot."""
        if self._path is None or time.monotonic() - self._looked_at < _LOOKS_S:
            return None
        self._looked_at = time.monotonic()
        held = os.fstat(self._file)
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                return None
        except FileNotFoundError:
            pass
        except OSError as error:
            return error
        try:
            new = self._open()
        except OSError as error:
            return error
        os.close(self._file)
        self._file, self._torn = new, b""
        return None
