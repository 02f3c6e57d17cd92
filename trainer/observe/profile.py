"""TensorFlow's profiler for some steps, viewable in TensorBoard's profile tab."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from trainer.observe.profile_order import ProfileOrder


class ProfileWindow:
    """Profiles the loop calls that touch the steps `first` to `last`, and what is ordered while the training runs.

    The profiler starts and stops between two calls of the inner loop, so the range grows to whole calls. A profiler
    that cannot start (another one is active in the process) is reported and training goes on without.

    Args:
        folder: the profiler adds `plugins/profile/...` to it.
        steps: first and last step, counted from 1, or None for no profile but the ordered ones.
        report: takes one sentence for the user.
        order: what is ordered; while a profile is taken, an order waits.

    Attributes:
        folder: as given; may be set between two profiles.
    """

    def __init__(
        self,
        folder: Path,
        steps: tuple[int, int] | None,
        report: Callable[[str], None],
        order: ProfileOrder | None = None,
    ) -> None:
        self.folder = folder
        self._steps = steps
        self._report = report
        self._order = order
        self._active: tuple[int, int] | None = None

    def before(self, step: int, num_steps: int) -> None:
        """Called before the loop call that takes the run from `step` to `step + num_steps` steps done."""
        if self._active is not None:
            return
        if self._steps is not None and step + num_steps >= self._steps[0] and step < self._steps[1]:
            window, self._steps = self._steps, None
        elif self._order is not None and (ordered := self._order.take()) is not None:
            window = step + 1, step + ordered
        else:
            return
        try:
            tf.profiler.experimental.start(str(self.folder))
        except (tf.errors.OpError, RuntimeError) as error:
            self._report(f"no profile of steps {window[0]} to {window[1]}: {error}")
        else:
            self._active = window

    def after(self, step: int) -> None:
        """Called when `step` steps are done; writes the profile once the range is behind."""
        if self._active is not None and step >= self._active[1]:
            self.close()

    def close(self) -> None:
        """Ends a profile in progress, whatever step the run stopped at."""
        if self._active is None:
            return
        self._active = None
        try:
            tf.profiler.experimental.stop()
        except (tf.errors.OpError, RuntimeError) as error:
            self._report(f"the profile was not written: {error}")
        else:
            self._report(f"profile written to {self.folder}: open it with tensorboard --logdir {self.folder}")
