"""Steps between two snapshots, changed by all workers of a group at the same step."""

from __future__ import annotations

import math

# Multiples of each other, mostly, so that snapshots fall on steps at which the inner loop ends anyway.
LADDER = tuple(digit * 10**exponent for exponent in range(7) for digit in (1, 2, 5))
FIRST_STEPS = 20
_NEAR = 1.8  # the middle between two rungs is 1.4 or 1.6 away from them


class SnapshotInterval:
    """A number of steps on a ladder.

    The calls of the inner loop end at snapshots, and workers count each other's votes call by call. So the interval
    must change everywhere after the same call: the chief, who measures, wishes for a longer or a shorter one, its wish
    travels with the votes, and each worker moves by one rung. The ladder costs little: an interval that is 1.6 times
    the best one costs a tenth more.

    Args:
        steps: To begin with; None where no snapshots are taken.

    Attributes:
        steps: Between two snapshots.
    """

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self._aim: int | None = None

    @property
    def wish(self) -> int:
        """-1: for a shorter interval, 1: for a longer one, 0: for none."""
        if self._aim is None or self.steps is None:
            return 0
        return (self._aim > self.steps) - (self._aim < self.steps)

    @property
    def aim(self) -> int | None:
        """The rung that it is to reach; None: it stays as it is."""
        return self._aim

    def aim_at(self, steps: float) -> None:
        """Has it become about so many steps; an interval that is nearly as good stays."""
        current = self._aim or self.steps
        assert current is not None
        is_near = 1 / _NEAR < steps / current < _NEAR
        self._aim = current if is_near else nearest_rung(steps)

    def move(self, direction: int) -> None:
        """Goes so many rungs up or down."""
        if direction:
            assert self.steps in LADDER, "one that the user has fixed does not move"
            self.steps = LADDER[min(max(LADDER.index(self.steps) + direction, 0), len(LADDER) - 1)]


def nearest_rung(steps: float) -> int:
    """The rung whose ratio to a number of steps is nearest to one.

    >>> [nearest_rung(steps) for steps in (0.2, 1.4, 1.5, 37, 740, 1e9)]
    [1, 1, 2, 50, 1000, 5000000]
    """
    return min(LADDER, key=lambda rung: abs(math.log(rung / max(steps, 1e-9))))
