"""When which step was completed, as far as reports tell."""

from bisect import bisect_right

# Beyond these, every second one of the older half is dropped.
_MOST_POINTS = 4000


class StepTimes:
    """Completed steps over time. Going back to an earlier step forgets the later ones."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []

    @property
    def best(self) -> int:
        """The highest step; 0 before the first."""
        return self._points[-1][0] if self._points else 0

    def add(self, step: int, at: float) -> None:
        """Notes that a step was completed by a time; a step that is not higher than the last one adds nothing."""
        if self._points and step <= self._points[-1][0]:
            return
        self._points.append((step, at))
        if len(self._points) > _MOST_POINTS:
            half = _MOST_POINTS // 2
            self._points[:half] = self._points[:half:2]

    def time_of(self, step: int) -> float | None:
        """When a step was completed; between two reports in proportion. None: before all that is known."""
        index = bisect_right(self._points, step, key=lambda point: point[0]) - 1
        if index < 0:
            return None
        first, at = self._points[index]
        if step == first or index + 1 == len(self._points):
            return at
        last, until = self._points[index + 1]
        return at + (until - at) * (step - first) / (last - first)

    def go_back(self, step: int) -> None:
        """Forgets what was completed after a step."""
        at = self.time_of(step)
        del self._points[bisect_right(self._points, step, key=lambda point: point[0]) :]
        if at is not None:
            self.add(step, at)

    def restart(self, step: int, at: float) -> None:
        """Steps are taken again, from this one on and from this time on."""
        self.go_back(step)
        if self._points and self._points[-1][0] == step:
            self._points.pop()
        self._points.append((step, at))
