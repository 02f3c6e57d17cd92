"""How the members of one host tell each other, in shared memory, how far they are.

Each member has a page with two counters that only it writes. Whoever waits looks at the others' counters, for a moment
again and again, because the others are often only microseconds behind and to be woken takes longer; then it sleeps
until a bell is rung. A bell is a named pipe: to ring costs a system call, which is spent only on who sleeps.

A counter is written after the data that it stands for. Other processors see both in that order only where the hardware
keeps the order of stores, as x86 does: elsewhere members tell each other through their connections.

A bell may be missed, when one falls asleep while the other looks whether it sleeps. So a sleeper looks again after a
while; what is missed costs time and nothing else.
"""

import os
import platform
import time
from collections.abc import Sequence

import numpy as np

from cluster.process_group.links import Links
from cluster.process_group.memory import Memory

KEEPS_ORDER = platform.machine() in ("x86_64", "AMD64")
PAGE_BYTES = 4096

ARRIVED, DONE = 0, 8  # places of the counters in the page: each on a cache line of its own
_SLEEPS = 16
_LOOK_S = 0.02


class Meeting:
    """One member's view of its host's counters.

    Args:
        memory: Of this process, for its bell and for the others'.
        own: This member's page, bytes; all zero.
        mates: The other members' names and pages.
        patience_s: How long to look before one sleeps; 0 where there are more members than processors.
    """

    def __init__(
        self, memory: Memory, own: np.ndarray, mates: Sequence[tuple[str, np.ndarray]], patience_s: float
    ) -> None:
        self._memory = memory
        self._own = own.data.cast("B").cast("Q")
        self._mates = [(worker, page.data.cast("B").cast("Q")) for worker, page in mates]
        self._patience_s = patience_s

    def tell(self, counter: int, number: int) -> None:
        """This member has come so far."""
        self._own[counter] = number
        for worker, page in self._mates:
            if page[_SLEEPS]:
                self._memory.ring(worker)

    def wait(self, links: Links, counter: int, number: int) -> None:
        """Returns when all other members have come so far.

        Raises:
            GroupAborted: The group was aborted.
        """
        late = [page for _, page in self._mates if page[counter] < number]
        if not late:
            return
        deadline = time.perf_counter() + (self._patience_s if links.looks else 0.0)
        while time.perf_counter() < deadline:
            late = [page for page in late if page[counter] < number]
            if not late:
                return
            os.sched_yield()
        self._own[_SLEEPS] = 1
        try:
            while any(page[counter] < number for page in late):
                links.sleep(self._memory.bell, _LOOK_S)
                self._memory.silence()
        finally:
            self._own[_SLEEPS] = 0


def patience_s(num_members: int) -> float:
    """How long members of one host look before they sleep."""
    return 5e-4 if num_members <= len(os.sched_getaffinity(0)) else 0.0
