"""Who asked what, when, and what became of it: one JSON object a line, never what was sent or answered."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any


class AuditLog:
    """Appends to a file.

    Args:
        path: Created, readable by its owner alone. One that is moved away is begun anew within a second.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_torn = False
        self._open()

    def write(self, **facts: Any) -> None:
        """One line, with the time (seconds since 1970) before the facts.

        Raises:
            OSError: It cannot be written, or not all of it.
        """
        if time.monotonic() - self._looked_at > 1.0:
            self._looked_at = time.monotonic()
            if not self._path.exists():
                os.close(self._file)
                self._open()
        line = json.dumps({"time": time.time(), **facts}).encode() + b"\n"
        # The beginning of a line that was cut off stays; the next one begins after it.
        content = b"\n" + line if self._is_torn else line
        self._is_torn = os.write(self._file, content) < len(content)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Nothing more is written."""
        os.close(self._file)

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._looked_at = time.monotonic()
