"""TensorFlow's profiler for a range of steps, viewable in TensorBoard's profile tab."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


class ProfileWindow:
    """Profiles the loop calls that touch the steps `first` to `last`.

    The profiler starts and stops between two calls of the inner loop, so the range grows to whole calls. A profiler
    that cannot start (another one is active in the process) is reported and training goes on without.

    Args:
        folder: the run's `tensorboard/` folder; the profiler adds `plugins/profile/...`.
        steps: first and last step, counted from 1, or None for no profile.
        report: takes one sentence for the user.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._steps = steps
        self._report = report
        self._active = False

    def before(self, step: int, num_steps: int) -> None:
        """Called before the loop call that takes the run from `step` to `step + num_steps` steps done."""
        if self._steps is None or self._active:
            return
        first, last = self._steps
        if step + num_steps < first or step >= last:
            return
        try:
            tf.profiler.experimental.start(str(self._folder))
        except (tf.errors.OpError, RuntimeError) as error:
            self._report(f"no profile of steps {first} to {last}: {error}")
            self._steps = None
        else:
            self._active = True

    def after(self, step: int) -> None:
        """Called when `step` steps are done; writes the profile once the range is behind."""
        if self._active and self._steps is not None and step >= self._steps[1]:
            self.close()

    def close(self) -> None:
        """Ends a profile in progress, whatever step the run stopped at."""
        if not self._active:
            return
        self._active = False
        self._steps = None
        try:
            tf.profiler.experimental.stop()
        except (tf.errors.OpError, RuntimeError) as error:
            self._report(f"the profile was not written: {error}")
        else:
            self._report(f"profile written to {self._folder}: open it with tensorboard --logdir {self._folder}")
