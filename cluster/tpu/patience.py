"""Trying again: exponential back-off with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from cluster.tpu.provider import Unavailable

_Answer = TypeVar("_Answer")


class Clock(Protocol):
    """Time, so that tests need none."""

    def now(self) -> float:
        """Seconds since 1970."""
        ...

    def sleep(self, seconds: float) -> None:
        """Returns after so long."""
        ...


class WallClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Returns after so long."""
        time.sleep(seconds)


@dataclass
class Patience:
    """How long and how often one tries again.

    Attributes:
        first_s: The longest first pause.
        most_s: The longest of all pauses.
        give_up_s: After which the last failure counts.
    """

    clock: Clock = field(default_factory=WallClock)
    random: random.Random = field(default_factory=random.Random)
    first_s: float = 1.0
    most_s: float = 60.0
    give_up_s: float = 900.0

    def pause(self, attempt: int) -> None:
        """Sleeps before a further attempt, the first of which has number 0."""
        longest = min(self.most_s, self.first_s * 2.0 ** min(attempt, 30))
        self.clock.sleep(self.random.uniform(0.05 * longest, longest))

    def until_answered(self, action: Callable[[], _Answer]) -> _Answer:
        """The answer to a request that may be sent any number of times.

        Raises:
            Unavailable: There was none for too long.
            TpuError: It is refused.
        """
        deadline, attempt = self.clock.now() + self.give_up_s, 0
        while True:
            try:
                return action()
            except Unavailable:
                if self.clock.now() >= deadline:
                    raise
            self.pause(attempt)
            attempt += 1
