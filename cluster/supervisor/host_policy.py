"""Which hosts are set aside because they fail again and again, and how soon a host is tried again."""

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from cluster.supervisor.settings import BackOff, HostLimits

# A standby that has waited this long had a good start: what ends it now says nothing about the next start.
_GOOD_START_S = 60.0


@dataclass
class _History:
    failures: deque[float] = field(default_factory=deque)
    bad_starts: int = 0
    start_from: float = 0.0


class HostsSetAside:
    """Sets a host aside for a time after several failures within a window. Knows hosts by name, also lost ones."""

    def __init__(self, limits: HostLimits, back_off: BackOff) -> None:
        self._limits, self._back_off = limits, back_off
        self._histories: dict[str, _History] = {}
        self._aside: dict[str, float] = {}

    def fail(self, host: str, now: float, others: Collection[str]) -> bool:
        """Notes that a member there failed, or the host itself.

        Args:
            host: the host.
            now: the time.
            others: the other hosts in use.

        Returns:
            Whether the host ought to be set aside now: it fails again and again, and more often than chance explains.
            Where all fail alike, it is not the host, and fewer hosts would only have more to carry.
        """
        self._histories.setdefault(host, _History()).failures.append(now)
        number = self._recent(host, now)
        if number < self._limits.failures:
            return False
        total = number + sum(self._recent(other, now) for other in others)
        return _binomial_tail(number, total, 1 / (1 + len(others))) < self._limits.chance

    def _recent(self, host: str, now: float) -> int:
        """How often a host failed within the window."""
        history = self._histories.get(host)
        if history is None:
            return 0
        while history.failures and history.failures[0] <= now - self._limits.window_s:
            history.failures.popleft()
        return len(history.failures)

    def set_aside(self, host: str, now: float) -> float:
        """Sets the host aside.

        Returns:
            The seconds that it will be.
        """
        self._aside[host] = now + self._limits.aside_s
        self._histories[host] = _History()
        return self._limits.aside_s

    @property
    def num_aside(self) -> int:
        """How many hosts are set aside."""
        return len(self._aside)

    def is_aside(self, host: str) -> bool:
        """Whether the host is set aside."""
        return host in self._aside

    def come_back(self, now: float) -> list[str]:
        """Takes back the hosts whose time is over.

        Returns:
            Their names.
        """
        back = [host for host, until in self._aside.items() if until <= now]
        for host in back:
            del self._aside[host]
        return back

    def recall(self) -> list[str]:
        """Takes back all hosts, because the run cannot do without them.

        Returns:
            Their names.
        """
        back = list(self._aside)
        self._aside.clear()
        return back

    def start_failed(self, host: str, lived_s: float, now: float, others: Collection[str]) -> bool:
        """Notes that a worker there ended before it became a member, and has the next start wait.

        Args:
            host: the host.
            lived_s: seconds since the worker was started.
            now: the time.
            others: the other hosts in use.

        Returns:
            Whether the host ought to be set aside now.
        """
        too_often = self.fail(host, now, others)
        history = self._histories[host]
        history.bad_starts = 1 if lived_s >= _GOOD_START_S else history.bad_starts + 1
        history.start_from = now + self._back_off.delay_s(history.bad_starts)
        # Starts that take longer to fail than the window lasts count as well.
        return too_often or history.bad_starts >= self._limits.failures

    def start_worked(self, host: str) -> None:
        """A worker there became a member."""
        if history := self._histories.get(host):
            history.bad_starts, history.start_from = 0, 0.0

    def may_start(self, host: str, now: float) -> bool:
        """Whether a worker may be started there now."""
        history = self._histories.get(host)
        return history is None or history.start_from <= now


def _binomial_tail(least: int, trials: int, share: float) -> float:
    """The probability that at least so many of the trials succeed, each with the probability `share`."""
    return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(least, trials + 1))
