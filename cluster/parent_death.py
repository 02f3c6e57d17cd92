"""Ends this process when its parent ends, however that ends."""

import ctypes
import os
import signal
import sys

# The exit code of a worker that ended itself because its agent is gone.
AGENT_LOST = 86

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent dies. Only Linux can; elsewhere this is a check of now.

    The kernel watches the parent's thread that started this process, not the parent as a whole: that thread must live
    as long as the parent. A process that this one starts does not inherit the wish.

    Args:
        parent: the pid of the process that started this one. When that is gone already, this process ends at once.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the kernel refuses a parent-death signal")
    # After the request, not before it: a parent that dies between the two would otherwise go unnoticed.
    if os.getppid() != parent:
        os._exit(AGENT_LOST)
