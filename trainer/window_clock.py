"""How fast a training was between two logged steps."""

import time


class WindowClock:
    """Speed and waiting time between two logged steps, evaluation not counted."""

    def __init__(self, examples: int) -> None:
        self._since = time.monotonic()
        self._examples = examples
        self._paused_s = 0.0
        self.waited_s = 0.0

    def pause(self, duration_s: float) -> None:
        """Time that was no training."""
        self._paused_s += duration_s

    def close_window(self, examples: int) -> tuple[float, float]:
        """Samples a second and the share of the time spent waiting for data (0 to 1), since the last call."""
        now = time.monotonic()
        elapsed_s = max(now - self._since - self._paused_s, 1e-9)
        speed = (examples - self._examples) / elapsed_s
        share = self.waited_s / elapsed_s
        self._since, self._examples, self._paused_s, self.waited_s = now, examples, 0.0, 0.0
        return speed, share
