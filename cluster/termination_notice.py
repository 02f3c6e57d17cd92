"""SIGTERM as a notice: heard at once, whatever the main thread of this process is stuck in."""

import signal
import socket
import threading
from collections.abc import Callable


def on_termination(tell: Callable[[], object]) -> None:
    """From now on SIGTERM no longer ends this process, and `tell` is called instead.

    A Python handler would wait until the main thread is back from whatever library it is in. The kernel's own part of a
    handler does not: it writes a byte that a thread waits for. To be called on the main thread, once.

    Args:
        tell: is called on a thread of its own, once for each signal.
    """
    noticed, notice = socket.socketpair()
    notice.setblocking(False)
    signal.set_wakeup_fd(notice.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        with noticed, notice:
            while numbers := noticed.recv(64):
                if signal.SIGTERM in numbers:
                    tell()

    threading.Thread(target=wait, name="termination-notice", daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: None)
