"""How many workers a generation gets, how long it waits for them, and when a running one is ended to grow."""

from cluster.supervisor.settings import Sizes


class MinMaxScaling:
    """Shrinks when no replacement comes in time, grows at a boundary when standbys allow."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def wanted(self, capacity: int) -> int:
        """How many members to start workers for, when the hosts have room for `capacity`."""
        # With too little room as well: those that wait are warm when the rest arrives.
        return self._sizes.largest_within(capacity) or min(capacity, self._sizes.max)

    def suffices(self, capacity: int) -> bool:
        """Whether a generation fits at all."""
        return self._sizes.largest_within(capacity) is not None

    def size(self, candidates: int, goal: int | None, waited_s: float, survive: bool = False) -> int | None:
        """How many of the candidates form a generation now.

        Args:
            candidates: workers that could.
            goal: how many it ought to be: members of the last generation, or more; None: this is the first.
            waited_s: seconds since the last generation ended.
            survive: whether members of that go on in their processes. They go on at once: to take in who comes later
                costs them less than to wait.

        Returns:
            None while it is better to wait for more, or while there are too few.
        """
        size = self._sizes.largest_within(candidates, survive)
        if size is None or survive or size >= self._goal(goal, waited_s):
            return size
        return None

    def least(self, goal: int | None, waited_s: float, survive: bool = False) -> int:
        """The fewest candidates for which `size` is worth asking."""
        return 1 if survive else self._goal(goal, waited_s)

    def grown_size(self, size: int, candidates: int, running_s: float, survive: bool = False) -> int | None:
        """To how many a generation of `size` members, running for `running_s` seconds, ought to grow.

        Returns:
            None when it ought not to, or not yet.
        """
        grown = self._sizes.largest_within(candidates, survive)
        return grown if grown is not None and grown > size and running_s >= self._sizes.keep_s else None

    def must_grow(self, waiting_s: float) -> bool:
        """Whether a growth that has waited this long for a boundary waits no longer."""
        return waiting_s >= self._sizes.grow_within_s

    def _goal(self, goal: int | None, waited_s: float) -> int:
        most, patience_s = (
            (self._sizes.largest_within(self._sizes.max) or self._sizes.max, self._sizes.gather_s)
            if goal is None
            else (goal, self._sizes.replace_within_s)
        )
        return most if waited_s < patience_s else self._sizes.min
