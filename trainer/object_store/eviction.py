"""Which files of a cache go when it is full: those that were used longest ago, by their time of change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable


def make_room(files: Iterable[os.DirEntry[str]], most: int) -> int:
    """Removes the files that were not used for longest until the others take at most so many bytes.

    Another process may remove some at the same time.

    Returns:
        The bytes that the others take.
    """
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            found.append((status.st_mtime_ns, file.path, status.st_size))
    total = sum(size for _, _, size in found)
    for _, path, size in sorted(found):
        if total <= most:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
    return total
