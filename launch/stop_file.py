"""A request to stop a run that is left in its folder, for a process on another machine or one that is just started."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.atomic_file import write_whole
from trainer.stop_request import StopRequest

_LOOK_S = 0.5


class StopFile:
    """The request.

    Args:
        run: the run folder.

    >>> import tempfile
    >>> file = StopFile(Path(tempfile.mkdtemp()))
    >>> file.write("phalanx stop on node1"); file.reason
    'phalanx stop on node1'
    >>> file.clear(); file.reason
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "stop-request"

    def write(self, reason: str) -> None:
        """Asks.

        Raises:
            OSError: the run folder cannot be written.
        """
        write_whole(self._path, reason)

    @property
    def reason(self) -> str | None:
        """Who asked; None: nobody did."""
        try:
            return self._path.read_text(encoding="utf-8")
        except OSError:
            return None

    def clear(self) -> None:
        """Takes the request back, or makes an end of it."""
        with contextlib.suppress(OSError):
            self._path.unlink()


@contextmanager
def stop_on_file(stop: StopRequest, file: StopFile, old_counts: bool) -> Iterator[None]:
    """Turns the file into the request, as long as the context lasts.

    Args:
        stop: the request.
        file: the file.
        old_counts: whether a request counts that was left before now. Otherwise it is taken for an earlier launch's.
    """
    if not old_counts:
        file.clear()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_S):
            if (reason := file.reason) is not None:
                stop.request(reason)
                return

    threading.Thread(target=look, name="stop-file", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
