"""A small process beside an agent that kills the agent's workers, and all that they have started, when the agent dies.

The kernel ends a worker with its agent by itself (`cluster.parent_death`), but at once, so that the worker has no time
to end what it has started. A guardian can, also when a worker hangs, is stopped or has not begun to run Python yet.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

from cluster import guardian_process

_END_S = 10


class Guardian:
    """Guards process groups until `close`. It is up to the caller to end the groups before that."""

    def __init__(self) -> None:
        # Isolated and without site-packages it starts in a few milliseconds. A session of its own keeps the terminal's
        # signals away.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guardian_process.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        """The guardian's own pid."""
        return self._process.pid

    def guard(self, group: int) -> None:
        """Kill this process group when the agent dies."""
        self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """The group has ended. Say so while its leader's pid cannot mean another process yet."""
        self._tell(f"-{group}\n")

    def remove(self, folder: Path) -> None:
        """Remove this folder when the agent is gone and all groups have been killed."""
        self._tell(f"{folder.absolute()}\n")

    def leave_folders(self, seconds: float) -> None:
        """Let folders stay for so long after the agent, unless a later agent's guardian has taken them over by then."""
        self._tell(f"={seconds:g}\n")

    def close(self) -> None:
        """Ends the guardian, which kills and removes whatever it was told to; a second call does nothing."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # somebody has stopped it
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # Without its guardian a worker still ends with the agent; that is no reason to end it now.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())
