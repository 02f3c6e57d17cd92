"""The state that a run returns to when a step is not finite, kept at steps that nothing but the config decides."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from trainer.checkpoint.host_buffer import ArraySpec
from trainer.config.interval import Interval
from trainer.due import Due
from trainer.session import Session
from trainer.state import ROLLBACK

# Where checkpoints go by the clock.
_KEPT_EVERY = Interval(20, "st")


class RollbackState:
    """A copy of the training state in memory, with `train.on_nan=rollback`; without it nothing is kept.

    It is kept where `checkpoint.every` is due, if that is in steps or epochs, whether a checkpoint is then taken or
    put off; else every 20 steps. What is saved at any other step has it along, so that a run that goes on from there
    returns to where the undisturbed run would.

    Args:
        session: Whose state it is.
    """

    def __init__(self, session: Session) -> None:
        self._state = session.state
        self._arrays: dict[str, np.ndarray] = {}
        every = session.config.checkpoint.every
        self._due: Due | None = None
        if session.config.train.on_nan == "rollback":
            in_steps = isinstance(every, Interval) and every.unit != "s"
            self._due = Due(every if in_steps else _KEPT_EVERY, session.order.steps_per_epoch)  # type: ignore[arg-type]

    def next_step(self, step: int) -> float:
        """The first step after `step` at which the state is kept; infinity for none."""
        return math.inf if self._due is None else self._due.next_step(step)

    def begin(self) -> None:
        """Keeps the state that the run begins with, unless one was restored along with it."""
        if self._due is not None and not self._arrays:
            self._keep()

    def at(self, step: int) -> None:
        """Keeps the state after `step` steps, if it is one of those steps."""
        if self._due is not None and self._due.reached(step):
            self._keep()

    def _keep(self) -> None:
        # New arrays each time: a snapshot of the ones before may still be being written.
        specs = {name: ArraySpec(*spec) for name, spec in self._state.shapes().items()}
        arrays = {name: np.empty(spec.shape, spec.numpy_dtype) for name, spec in specs.items()}
        self._state.copy_to(arrays)
        self._arrays = arrays

    def return_to(self) -> int:
        """Brings the kept state back; returns its step."""
        assert self._arrays, "kept at the start of a run that may roll back"
        self._state.restore(self._arrays)
        return self._state.step

    def specs(self, specs: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
        """Of the arrays that are saved with a state of the given ones."""
        return {} if self._due is None else {ROLLBACK + name: spec for name, spec in specs.items()}

    def arrays(self, step: int | None = None) -> dict[str, np.ndarray]:
        """What is saved with a state; with that of `step` nothing, where it is the kept one itself."""
        if not self._arrays or self._arrays["step"] == step:
            return {}
        return {ROLLBACK + name: values for name, values in self._arrays.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what was saved with a state; a state that was saved alone is itself where a roll-back leads to."""
        prefix = len(ROLLBACK)
        if self._due is not None:
            # Copies, because a snapshot's arrays lie in a file that is written again.
            self._arrays = {name[prefix:]: np.array(a) for name, a in arrays.items() if name.startswith(ROLLBACK)}
