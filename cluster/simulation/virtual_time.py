"""Time that passes only from one planned action to the next."""

import heapq
from collections.abc import Callable
from typing import Any


class VirtualTime:
    """A clock and the actions planned on it. Actions of the same time happen in the order of their planning.

    Attributes:
        now: seconds since the beginning.

    >>> time = VirtualTime()
    >>> time.after(5.0, print, "second"); time.after(2.0, print, "first")
    >>> while time.step():
    ...     pass
    first
    second
    >>> time.now
    5.0
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._planned: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay_s: float, action: Callable[..., Any], *arguments: Any) -> None:
        """Plans an action."""
        self._count += 1
        heapq.heappush(self._planned, (self.now + delay_s, self._count, action, arguments))

    @property
    def next_at(self) -> float | None:
        """When the next action is planned; None when there is none."""
        return self._planned[0][0] if self._planned else None

    def step(self) -> bool:
        """Goes on to the next action and does it.

        Returns:
            Whether there was one.
        """
        if not self._planned:
            return False
        self.now, _, action, arguments = heapq.heappop(self._planned)
        action(*arguments)
        return True
