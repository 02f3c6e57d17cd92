"""The program of a guardian: kills the process groups it was told of when the agent that told it is gone.

It runs alone, from its file, without the rest of the package: it has to be up before the first worker is, and it lives
as long as the agent. Its input is lines: `+4711` for a group to guard, `-4711` for one that has ended.
"""

import contextlib
import os
import signal
import sys


def guard(descriptor: int) -> None:
    """Follows the agent's lines until they end, and kills every group that is still guarded then."""
    groups: set[int] = set()
    rest = b""
    while data := os.read(descriptor, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            change = groups.add if line.startswith(b"+") else groups.discard
            change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(OSError):  # it has ended by itself
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    # The agent alone ends it: not Ctrl-C in its terminal, nor a signal to everything of this user.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(sys.stdin.fileno())
