"""The list of service workers, in the run folder: all that a training process has to know to find them.

It says who may be asked and proves nothing: whoever is on it has to know the run's key. It is written whole or not at
all, by the launcher alone; a process that cannot read it goes on with what it read before.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path


class WorkerList:
    """The file. Training processes look at it again and again, which costs a `stat` as long as it stays.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._workers: dict[str, str] = {}

    def read(self) -> dict[str, str]:
        """The address of each worker, by name."""
        try:
            status = self.path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                workers = json.loads(self.path.read_text(encoding="utf-8"))["workers"]
                self._workers = {str(name): str(address) for name, address in workers.items()}
                self._seen = seen
        except (OSError, ValueError, KeyError, AttributeError):
            pass  # not there yet, or a storage that does not answer at the moment
        return dict(self._workers)

    def write(self, workers: Mapping[str, str]) -> None:
        """Stores the list.

        Raises:
            OSError: the folder cannot be written.
        """
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text(json.dumps({"workers": dict(workers)}) + "\n", encoding="utf-8")
        os.replace(new, self.path)

    def remove(self) -> None:
        """Takes the file away; the run has no service any more.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.unlink(missing_ok=True)
