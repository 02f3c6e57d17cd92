"""When something that happens at intervals is due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from trainer.config.interval import Interval


class Due:
    """Says at which steps an action is due.

    Intervals of steps and epochs are due at fixed steps, whatever the process went through before; intervals of
    seconds at the first boundary after the time has passed.

    Args:
        interval: How often; None is never.
        steps_per_epoch: Length of an epoch.
        clock: Monotonic seconds.
    """

    def __init__(
        self, interval: Interval | None, steps_per_epoch: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._every_steps: float | None = None
        self._every_s = math.inf
        if interval is not None and interval.unit == "s":
            self._every_s = interval.value
        elif interval is not None:
            self._every_steps = interval.value * (steps_per_epoch if interval.unit == "ep" else 1)
        self._since = clock()
        self._owed = False

    def next_step(self, step: int) -> float:
        """The first step after `step` at which the action is due; infinity where steps do not decide."""
        if self._every_steps is None:
            return math.inf
        # A fraction of an epoch is rounded up to a whole step, once for each multiple, so that it does not drift.
        multiple = math.floor(step / self._every_steps) + 1
        while math.ceil(multiple * self._every_steps) <= step:
            multiple += 1
        return math.ceil(multiple * self._every_steps)

    def change(self, seconds: float) -> None:
        """From now on it is due so many seconds after the last time; for an interval of seconds."""
        assert self._every_steps is None
        self._every_s = seconds

    @property
    def time_is_up(self) -> bool:
        """Whether the clock says that the action is due; False where steps decide."""
        return self._every_s < math.inf and self._clock() - self._since >= self._every_s

    def reached(self, step: int, time_is_up: bool | None = None) -> bool:
        """Whether the action is due after `step` steps, or was put off when it was.

        Args:
            step: Steps done.
            time_is_up: What another process's clock says; without it, the own clock counts.
        """
        if self._owed:
            return True
        if self._every_steps is None:
            return self.time_is_up if time_is_up is None else time_is_up
        return step > 0 and self.next_step(step - 1) == step

    def falls_on(self, step: int) -> bool:
        """Whether a fixed step is one at which the action is due, whatever this process went through before."""
        return self._every_steps is not None and step > 0 and self.next_step(step - 1) == step

    @property
    def is_owed(self) -> bool:
        """Whether the action was put off."""
        return self._owed

    def put_off(self) -> None:
        """The action could not be done now: it stays due."""
        self._owed = True

    def done(self) -> None:
        """The action is done; seconds count from here."""
        self._owed = False
        self._since = self._clock()
