"""How many service workers a run needs, from the share of its time that it waits for data: a pure decision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

HIGH, LOW = 0.05, 0.005
"""Shares of the time: from `HIGH` on waiting is worth another worker, up to `LOW` one may be too many."""

_SAMPLES = 3
_SETTLE_S = 5.0
_GROW_S = 10.0
_SHRINK_S = 120.0
_USEFUL = 0.9
_FORGET_S = 900.0


class Wait(NamedTuple):
    """What was measured between two logged steps.

    Attributes:
        at: monotonic seconds, of its end.
        share: of that time, 0 to 1, that the training waited for data.
    """

    at: float
    share: float


@dataclass(frozen=True)
class Scaling:
    """What is known of a run's need, and the number of workers that follows from it.

    Attributes:
        fewest, most: workers that the config allows.
        wanted: workers.
        since: when that number was reached; None: some of them are still starting.
        waits: measured since then.
        before: the mean wait before the last growth, and with how many workers; None: it did not grow last.
        ceiling, floor: more or fewer workers were tried and were of no use, or were missed.
        tried: when the ceiling or the floor was found; they are forgotten after a quarter of an hour.
    """

    fewest: int
    most: int
    wanted: int
    since: float | None = None
    waits: tuple[Wait, ...] = ()
    before: tuple[float, int] | None = None
    ceiling: int | None = None
    floor: int | None = None
    tried: float = 0.0

    @classmethod
    def between(cls, fewest: int, most: int) -> Scaling:
        """The beginning: as few as are allowed."""
        return cls(fewest, most, fewest)

    def after(self, now: float, ready: int, waits: tuple[Wait, ...]) -> Scaling:
        """What is known a moment later.

        Args:
            now: monotonic seconds.
            ready: workers that serve.
            waits: measured since the last call.

        A number that has just changed is judged by what is measured once all its workers serve, and some seconds more.
        The service grows by what the waiting says: a share w of the time means that 1 / (1 - w) times as many could
        keep up; at most twice as many at once. A growth that took less than a tenth off the waiting is taken back: more
        workers do not help where the source, the network or the processors are the limit.
        """
        state = self
        if now - state.tried > _FORGET_S:
            state = replace(state, ceiling=None, floor=None)
        if ready < state.wanted:
            return replace(state, since=None, waits=())
        if state.since is None:
            return replace(state, since=now, waits=())
        since = state.since
        kept = (*state.waits, *(wait for wait in waits if wait.at >= since + _SETTLE_S))
        state = replace(state, waits=tuple(wait for wait in kept if wait.at >= now - _SHRINK_S))
        if len(state.waits) < _SAMPLES:
            return state
        mean = sum(wait.share for wait in state.waits) / len(state.waits)
        watched_s = now - since
        if mean >= HIGH and watched_s >= _GROW_S:
            return state._grown(now, mean)
        if watched_s >= _GROW_S:
            state = replace(state, before=None)  # whatever comes later is no verdict on that growth
        if mean <= LOW and watched_s >= _SHRINK_S and state.wanted > max(state.fewest, state.floor or 0):
            return state._changed(state.wanted - 1, before=None)
        return state

    def _grown(self, now: float, mean: float) -> Scaling:
        if self.before is not None and mean > _USEFUL * self.before[0]:
            return replace(self._changed(self.before[1], None), ceiling=self.before[1], tried=now)
        limit = min(self.most, self.ceiling or self.most)
        wanted = math.ceil(self.wanted / max(0.5, 1 - mean))
        grown = min(limit, max(self.wanted + 1, wanted))
        if grown <= self.wanted:
            return self
        state = self._changed(grown, (mean, self.wanted))
        return replace(state, floor=grown, tried=now)

    def _changed(self, wanted: int, before: tuple[float, int] | None) -> Scaling:
        return replace(self, wanted=wanted, since=None, waits=(), before=before)
