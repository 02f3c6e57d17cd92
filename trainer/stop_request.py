"""The wish to stop a run: set by a signal, read by the loop at its next boundary."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequest:
    """A wish that can be made from any thread or signal handler, once; later wishes do not change the reason."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop, such as "SIGTERM"; None as long as nobody asked."""
        return self._reason

    def request(self, reason: str) -> None:
        """Ask the run to save its state and stop."""
        if self._reason is None:
            self._reason = reason
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody asks; returns whether somebody did."""
        return self._event.wait(timeout_s)


@contextmanager
def stop_on_signals(stop: StopRequest, second_interrupt: Any = signal.SIG_DFL) -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into the request.

    Only the main thread may enter. The handlers that were there before are back afterwards.

    Args:
        stop: the request.
        second_interrupt: handler of a second SIGINT. The default action ends the process at once: it needs no Python,
            so it also ends one that is inside a long computation.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        stop.request(signal.Signals(number).name)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, second_interrupt)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
