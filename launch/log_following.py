"""`phalanx logs -f`: what the processes of a run write, as they write it, from any machine that sees the run folder."""

import time
from collections.abc import Callable
from pathlib import Path

from cluster.run_lock import KEEPING, read_holder
from launch.run_log import launcher_log, log_files
from trainer.run_folder import RunFolder

_LOOK_S = 0.2


class FollowedFile:
    """Gives the whole lines that a file has gained.

    Args:
        path: the file; it need not be there yet.
        lines: so many last ones of those that are there already; 0: all.
    """

    def __init__(self, path: Path, lines: int = 0) -> None:
        self.path = path
        self._offset, self._first = 0, -lines

    def read(self) -> list[str]:
        """The lines that are new."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found, self._first = whole.decode(errors="replace").splitlines()[self._first :], 0
        return found


def follow_logs(folder: RunFolder, show: Callable[[str], object], lines: int = 0) -> None:
    """Shows what is written until the run has ended.

    Of a detached run that is what a terminal would have shown, of others the log files of their newest generation.

    Args:
        folder: of the run.
        show: gets each line.
        lines: so many last ones of what is there already; 0: all.
    """
    followed: dict[Path, FollowedFile] = {}
    shown: Path | None = None
    is_detached, is_over = read_holder(folder.path, KEEPING) is not None, False
    while not is_over:
        # In this order: what was written before the end is shown.
        is_over = read_holder(folder.path) is None and read_holder(folder.path, KEEPING) is None
        for path in _files(folder, is_detached):
            for line in followed.setdefault(path, FollowedFile(path, lines)).read():
                if shown != path:
                    show(f"== {path}")
                    shown = path
                show(line)
        if not is_over:
            time.sleep(_LOOK_S)


def _files(folder: RunFolder, is_detached: bool) -> list[Path]:
    launchers = launcher_log(folder.logs)
    generations = log_files(folder.logs)
    return [launchers] if is_detached or not generations else generations[-1]
