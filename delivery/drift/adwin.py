"""ADWIN: a window over a stream that grows while nothing changes, and drops its past when something does.

Bifet and Gavalda, "Learning from time-changing data with adaptive windowing", SIAM SDM 2007: ADWIN2, whose exponential
histogram keeps O(log n) buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_MOST_OF_A_SIZE = 5  # buckets of one size before the two oldest become one
_SHORTEST = 5  # values on either side of a cut


@dataclass
class _Bucket:
    count: int
    total: float
    spread: float  # sum of the squared distances from the bucket's mean


class Adwin:
    """Watches the mean of a stream of numbers in [0, 1].

    Args:
        delta: Probability of a change being reported in a window without one.

    >>> adwin = Adwin()
    >>> [i for i in range(400) if adwin.add(0.3 if i < 200 else 0.7)][0] < 230
    True
    """

    def __init__(self, delta: float = 0.002) -> None:
        self._delta = delta
        self._buckets: list[_Bucket] = []  # oldest first, so sizes fall

    @property
    def count(self) -> int:
        """Values in the window."""
        return sum(bucket.count for bucket in self._buckets)

    @property
    def mean(self) -> float:
        """Of the window; NaN while it is empty."""
        count = self.count
        return sum(bucket.total for bucket in self._buckets) / count if count else math.nan

    def add(self, value: float) -> bool:
        """Takes one value in; returns whether the stream has changed."""
        self._buckets.append(_Bucket(1, value, 0.0))
        self._compress()
        changed = False
        while self._cut_once():
            changed = True
        return changed

    def _compress(self) -> None:
        size = 1
        while True:
            same = [index for index, bucket in enumerate(self._buckets) if bucket.count == size]
            if len(same) <= _MOST_OF_A_SIZE:
                return
            first = same[0]
            self._buckets[first : first + 2] = [_joined(self._buckets[first], self._buckets[first + 1])]
            size *= 2

    def _cut_once(self) -> bool:
        """Drops the oldest bucket if some cut of the window has means on its sides that chance does not explain."""
        whole = self._buckets[0]
        for bucket in self._buckets[1:]:
            whole = _joined(whole, bucket)
        if whole.count < 2 * _SHORTEST:
            return False
        variance = whole.spread / whole.count
        log_term = math.log(2 * math.log(max(whole.count, 3)) / self._delta)
        older_count, older_total = 0, 0.0
        for bucket in self._buckets[:-1]:
            older_count += bucket.count
            older_total += bucket.total
            newer_count = whole.count - older_count
            if older_count < _SHORTEST or newer_count < _SHORTEST:
                continue
            m = 1 / (1 / older_count + 1 / newer_count)
            bound = math.sqrt(2 / m * variance * log_term) + 2 / (3 * m) * log_term
            if abs(older_total / older_count - (whole.total - older_total) / newer_count) > bound:
                del self._buckets[0]
                return True
        return False


def _joined(a: _Bucket, b: _Bucket) -> _Bucket:
    count = a.count + b.count
    distance = a.total / a.count - b.total / b.count
    return _Bucket(count, a.total + b.total, a.spread + b.spread + distance**2 * a.count * b.count / count)
