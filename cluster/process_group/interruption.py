"""How any thread ends what the training thread waits for."""

import contextlib
import math
import os
import threading


class Interruption:
    """Which generations are over, and a file descriptor that wakes whoever waits in one of them.

    Attributes:
        fd: readable after `end`, until `clear`.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._last_ended: float = -1
        self._closing = threading.Lock()
        self._is_closed = False

    def end(self, generation: float = math.inf) -> None:
        """Ends all generations up to this one, from any thread."""
        with self._closing:  # afterwards the number may be another file's
            self._last_ended = max(self._last_ended, generation)
            if not self._is_closed:
                os.eventfd_write(self.fd, 1)

    def has_ended(self, generation: int) -> bool:
        """Whether the generation is over."""
        return generation <= self._last_ended

    def clear(self) -> None:
        """Makes `fd` unreadable. To be followed by a look at `has_ended`: an `end` in between is seen by that look."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Closes the descriptor."""
        with self._closing:
            if not self._is_closed:
                os.close(self.fd)
            self._is_closed = True
