"""What saving costs the steps: the time that the loop is held up, and how much slower steps are beside a write."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

_SAVES, _CALLS = 9, 17  # over which a median is taken
_PACE_S = 60.0  # over which the pace is averaged
_DEVIATIONS = 1.4826  # standard deviations in a median one, of a normal distribution
# Calls without a clean one: at the beginning, and later.
_FIRST_LONGING, _LATER_LONGING = 4, 64


class _Save(NamedTuple):
    """Seconds that the loop was held up, by which calls beside the write were longer, and by which they vary anyway."""

    held_s: float
    slower_s: float
    noise_s: float


class SaveCost:
    """Of one kind of save.

    A save costs what the loop spends on handing the state over, and what the calls of the inner loop take longer than
    usual while a thread writes it: the copy takes memory bandwidth and processor time from the steps. One call is
    faster, another slower; so the median of several saves counts, and only what is more than such calls vary anyway
    and less than the write itself took.

    Args:
        num_ignored: Of the first saves of a process, whose buffers are new.

    Attributes:
        write_s: Seconds until the newest one was written; 0 before the first.
        total: Saves that have been measured.
        has_news: Whether one was added since somebody has set this to False.
    """

    def __init__(self, num_ignored: int = 0) -> None:
        self.write_s = 0.0
        self.total = 0
        self.has_news = False
        self._ignored = num_ignored
        self._found: deque[_Save] = deque(maxlen=_SAVES)
        self._held_s: float | None = None  # of the save that is being written
        self._slower_s = self._noise_s = 0.0

    @property
    def count(self) -> int:
        """How many saves are known."""
        return len(self._found)

    @property
    def seconds(self) -> float:
        """What one save costs; of at least one."""
        held_s, slower_s, noise_s = map(statistics.median, zip(*self._found, strict=True))
        is_clear = slower_s > 2 * noise_s / math.sqrt(len(self._found))
        return held_s + (min(slower_s, self.write_s) if is_clear else 0.0)

    def begins(self, held_s: float) -> None:
        """A save was handed over to its thread, which held the loop up for so long."""
        self.ends()  # the one before may have ended and this one begun between two calls
        self._held_s, self._slower_s, self._noise_s = held_s, 0.0, 0.0

    def slowed(self, seconds: float, noise_s: float) -> None:
        """A call beside the write took so much longer than usual, and such calls vary by so much."""
        self._slower_s += seconds
        self._noise_s = math.hypot(self._noise_s, noise_s)

    def ends(self) -> None:
        """Nothing is being written any more."""
        held_s, self._held_s = self._held_s, None
        if held_s is None:
            return
        if self._ignored:
            self._ignored -= 1
            return
        self._found.append(_Save(held_s, self._slower_s, self._noise_s))
        self.total += 1
        self.has_news = True

    def to_json(self) -> dict[str, Any]:
        """What a later process of the run may begin with."""
        return {"found": [list(one) for one in self._found], "write_s": self.write_s}

    def remember(self, content: Mapping[str, Any]) -> None:
        """Begins with what an earlier process has measured."""
        self.write_s = float(content["write_s"])
        self._found.extend(_Save(*map(float, one)) for one in content["found"])
        self.total = len(self._found)
        self._ignored, self.has_news = (0, True) if self._found else (self._ignored, False)


class StepClock:
    """What steps take.

    Attributes:
        pace: Seconds a step over the last minute, whatever was written meanwhile; 0 before the first call.
    """

    def __init__(self) -> None:
        self.pace = 0.0
        self._seconds = self._num_steps = 0.0
        self._clean: deque[float] = deque(maxlen=_CALLS)
        self._since_clean = 0

    @property
    def seconds(self) -> float | None:
        """Of one step that nothing is written beside, lately; None before the first such call."""
        return statistics.median(self._clean) if self._clean else None

    @property
    def noise(self) -> float:
        """By how many seconds a step such calls differ: a standard deviation, told from the median one."""
        usual = statistics.median(self._clean)
        return _DEVIATIONS * statistics.median(abs(one - usual) for one in self._clean)

    @property
    def longs_for_clean(self) -> bool:
        """Whether calls have been beside writes for so long that it is not known what steps take without."""
        return self._since_clean >= (_LATER_LONGING if self._clean else _FIRST_LONGING)

    def took(self, num_steps: int, seconds: float, is_clean: bool) -> None:
        """A call of the inner loop is over."""
        kept = math.exp(-seconds / _PACE_S)
        self._seconds = kept * self._seconds + seconds
        self._num_steps = kept * self._num_steps + num_steps
        self.pace = self._seconds / self._num_steps
        self._since_clean = 0 if is_clean else self._since_clean + 1
        if is_clean:
            self._clean.append(seconds / num_steps)
