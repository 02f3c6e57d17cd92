"""The program of a guardian: kills the process groups it was told of when the agent that told it is gone.

It runs alone, from its file, without the rest of the package: it has to be up before the first worker is, and it lives
as long as the agent. Its input is lines: `+4711` for a group to guard, `-4711` for one that has ended, and the path of
a folder that goes with the agent.
"""

import contextlib
import os
import shutil
import signal
import sys


def guard(descriptor: int) -> None:
    """Follows the agent's lines until they end, kills every group that is still guarded then, and removes folders."""
    groups: set[int] = set()
    folders: list[bytes] = []
    rest = b""
    while data := os.read(descriptor, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"/"):
                folders.append(line)
                continue
            change = groups.add if line.startswith(b"+") else groups.discard
            change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(OSError):  # it has ended by itself
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # The agent alone ends it: not Ctrl-C in its terminal, nor a signal to everything of this user.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(sys.stdin.fileno())
