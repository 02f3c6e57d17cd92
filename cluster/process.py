"""Which process a pid means: an identity that outlives it, so that no signal ever reaches a stranger.

The kernel hands pids out again. A pid with the time at which its process started, and the boot that time counts from,
is never handed out twice.
"""

import contextlib
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


class NoSuchProcess(Exception):
    """The process has ended, or lives on another host. The message is one sentence for the user."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, for all time.

    Attributes:
        pid: its number on its host.
        started: when it started: the boot's id and the clock ticks since then on Linux, else seconds since 1970.
        host: the name of its host.
    """

    pid: int
    started: str
    host: str

    @property
    def is_local(self) -> bool:
        """Whether it is a process of this host."""
        return self.host == socket.gethostname()


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    return ProcessIdentity(os.getpid(), _start_of(os.getpid()) or "", socket.gethostname())


def identity_of(pid: int) -> ProcessIdentity | None:
    """The identity of the process that has this pid on this host now; None when there is none."""
    started = _start_of(pid)
    return None if started is None else ProcessIdentity(pid, started, socket.gethostname())


def is_alive(process: ProcessIdentity) -> bool:
    """Whether the process still runs. One that has ended and waits for its parent does not.

    Raises:
        NoSuchProcess: it lives on another host, so that this one cannot tell.
    """
    _must_be_local(process)
    return _start_of(process.pid) == process.started


def send_signal(process: ProcessIdentity, number: signal.Signals) -> None:
    """Sends a signal to exactly this process.

    Raises:
        NoSuchProcess: it has ended, or lives on another host.
        PermissionError: it belongs to another user.
    """
    _must_be_local(process)
    with contextlib.ExitStack() as stack:
        handle = _open_handle(process.pid, stack)
        # The handle is to whatever has the pid now, and stays with it; so the check comes after it, and nothing can
        # slip in between the check and the signal.
        if not is_alive(process):
            raise NoSuchProcess(f"process {process.pid} has ended: there is nothing to stop")
        try:
            if handle is not None:
                signal.pidfd_send_signal(handle, number)
            else:
                os.kill(process.pid, number)
        except ProcessLookupError:
            raise NoSuchProcess(f"process {process.pid} has ended: there is nothing to stop") from None
        except PermissionError:
            raise PermissionError(
                f"process {process.pid} belongs to another user: stop it as that user, or as root"
            ) from None


def wait_until_gone(process: ProcessIdentity, timeout_s: float) -> bool:
    """Waits for the process to end.

    Returns:
        Whether it ended in time.

    Raises:
        NoSuchProcess: it lives on another host, so that this one cannot tell.
    """
    _must_be_local(process)
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        handle = _open_handle(process.pid, stack)
        while is_alive(process):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if handle is not None:
                select.select([handle], [], [], left)
            else:
                time.sleep(min(left, 0.05))
    return True


def _must_be_local(process: ProcessIdentity) -> None:
    if not process.is_local:
        raise NoSuchProcess(
            f"process {process.pid} runs on {process.host}, and this is {socket.gethostname()}: "
            f"give the command on {process.host}"
        )


def _open_handle(pid: int, stack: contextlib.ExitStack) -> int | None:
    """A pidfd (Linux 5.3): it never means another process, and it becomes readable when its process ends."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # the process has ended, or the kernel is older: the caller finds out which
        return None
    stack.callback(os.close, handle)
    return handle


def _start_of(pid: int) -> str | None:
    """When the running process with this pid started; None when there is none, or it only waits for its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except ProcessLookupError:
        return None
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_without_proc(pid)
    # The name in parentheses may hold anything, also spaces and parentheses: fields are counted from behind it.
    state, *fields = text[text.rindex(")") + 2 :].split()
    return None if state in "ZX" else f"{boot}:{fields[18]}"


def _start_without_proc(pid: int) -> str | None:
    """The same where there is no /proc, as on macOS."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.NoSuchProcess:
        return None
