"""A request to profile the next steps of a run that is going on, left in its folder for whoever leads it."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trainer.atomic_file import write_whole

_LOOK_S = 0.5


class ProfileRequest(NamedTuple):
    """What somebody wants to see.

    Attributes:
        steps: How many of the next steps.
        rank: Of the worker to be looked at.
    """

    steps: int
    rank: int


class ProfileFile:
    """The request.

    Args:
        run: The run folder.

    >>> import tempfile
    >>> file = ProfileFile(Path(tempfile.mkdtemp()))
    >>> file.write(ProfileRequest(10, 0)); file.take()
    ProfileRequest(steps=10, rank=0)
    >>> file.take()
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "profile-request"

    def write(self, request: ProfileRequest) -> None:
        """Asks.

        Raises:
            OSError: The run folder cannot be written.
        """
        write_whole(self._path, json.dumps(request._asdict()))

    def take(self) -> ProfileRequest | None:
        """The request, which is no longer there then; None: nobody asked, or nobody can read what is there."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError:
            return None
        self.clear()
        try:
            return ProfileRequest(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def clear(self) -> None:
        """Takes the request back."""
        with contextlib.suppress(OSError):
            self._path.unlink()


@contextmanager
def profile_on_file(file: ProfileFile, order: Callable[[ProfileRequest], object]) -> Iterator[None]:
    """Carries out each request that is made as long as the context lasts; older ones are not meant for this launch.

    Args:
        file: The file.
        order: Gets each request, on another thread.
    """
    file.clear()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_S):
            if (request := file.take()) is not None:
                order(request)

    threading.Thread(target=look, name="profile-file", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
