"""The program of a guardian: kills the process groups it was told of when the agent that told it is gone.

It runs alone, from its file, without the rest of the package: it has to be up before the first worker is, and it lives
as long as the agent. Its input is lines: `+4711` for a group to guard, `-4711` for one that has ended, the path of a
folder that goes with the agent, and `=600` for folders that are to stay for so many seconds after it, so that a
successor on this host can take them over.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time


def guard(descriptor: int) -> None:
    """Follows the agent's lines until they end, kills every group that is still guarded then, and removes folders."""
    groups: set[int] = set()
    folders: list[tuple[bytes, int | None]] = []
    stay_s = 0.0
    rest = b""
    while data := os.read(descriptor, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"/"):
                folders.append((line, _hold(line)))
                continue
            if line.startswith(b"="):
                stay_s = float(line[1:])
                continue
            change = groups.add if line.startswith(b"+") else groups.discard
            change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(OSError):  # it has ended by itself
            os.killpg(group, signal.SIGKILL)
    if folders and stay_s:
        # In a process of its own: whoever waits for the guardian waits for the groups only, and a cluster that ends
        # the agent's children leaves this one alone.
        if os.fork():
            return
        os.setsid()
        for folder, _ in folders:
            with contextlib.suppress(OSError):
                os.utime(folder)  # shows others, while nobody holds it, that it is not an old one
        until = time.monotonic() + stay_s
        while folders and (left_s := until - time.monotonic()) > 0:
            # Not held meanwhile: a successor that ends before this time is over is then the one that removes it.
            folders = [(folder, held) for folder, held in folders if held is None or _is_free(folder, held)]
            time.sleep(min(1.0, left_s))
    for folder, held in folders:
        if held is None or _is_ours(folder, held):
            shutil.rmtree(folder, ignore_errors=True)


def _hold(folder: bytes) -> int | None:
    """Says that this folder is in use, to the guardians of earlier agents, which would remove it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is about to be removed, or its file system has no locks
        return None
    return descriptor


def _is_ours(folder: bytes, held: int) -> bool:
    """Whether nobody else uses the folder, and it is the one that was held and not another of its name."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(folder), os.fstat(held))
    except OSError:
        return False


def _is_free(folder: bytes, held: int) -> bool:
    """Whether the folder is there and no successor has taken it over; it is not held any more."""
    is_free = _is_ours(folder, held)
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_UN)
    return is_free


if __name__ == "__main__":
    # The agent alone ends it: not Ctrl-C in its terminal, nor a signal to everything of this user.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(sys.stdin.fileno())
