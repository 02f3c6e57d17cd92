"""When and what a run saves: checkpoints on a thread beside the loop, and the state that a roll-back returns to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.checkpoint.host_buffer import ArraySpec
from trainer.checkpoint.store import CheckpointStore
from trainer.checkpoint.writer import CheckpointWriter, FailedCheckpoint, SavedCheckpoint
from trainer.config.checkpoint import CheckpointConfig
from trainer.due import Due
from trainer.position import Position
from trainer.recorder import Recorder
from trainer.run_folder import RunFolder
from trainer.session import Session


class StateNotSaved(RuntimeError):
    """The last state of a run could not be written. The message is one sentence for the user."""


class Saver:
    """Saves the training state and brings it back.

    Args:
        session: Whose state it is.
        folder: Of the run.
        recorder: Told of every checkpoint.

    Attributes:
        position: Skipped windows of the data; restored with the state.
        metrics: The newest evaluation, stored with each checkpoint to find the best.
    """

    def __init__(self, session: Session, folder: RunFolder, recorder: Recorder) -> None:
        config: CheckpointConfig = session.config.checkpoint
        self._session, self._recorder = session, recorder
        self._store = CheckpointStore(folder.checkpoints, config.keep, config.best_metric, config.best_mode)
        self._store.prepare()
        self._writer = CheckpointWriter(
            self._store,
            on_saved=self._saved,
            on_failed=self._failed,
            before_commit=recorder.sync,
            max_overhead=config.max_overhead,
        )
        self._specs = {name: ArraySpec(*spec) for name, spec in session.state.shapes().items()}
        self._wall_time_before_s, self._started = 0.0, time.monotonic()
        self._rollback_state: dict[str, np.ndarray] | None = None
        self.due = Due(config.every, session.order.steps_per_epoch)
        self.position = Position()
        self.metrics: dict[str, float] = {}

    @property
    def wall_time_s(self) -> float:
        """Seconds of all processes that worked on this run, as far as their work is kept."""
        return self._wall_time_before_s + time.monotonic() - self._started

    def restore(self) -> int | None:
        """Restores the newest good checkpoint.

        Returns:
            Its step; None where there is none, and the state is as built.

        Raises:
            ValueError: The checkpoint does not fit the model.
        """
        checkpoint = self._store.newest_verified(self._damaged)
        if checkpoint is None:
            return None
        self._session.state.restore(checkpoint.arrays)
        self.position = Position(checkpoint.metadata.get("skipped_windows", ()))
        self.metrics = dict(checkpoint.metadata.get("metrics") or {})
        self._wall_time_before_s = float(checkpoint.metadata.get("wall_time_s", 0.0))
        return checkpoint.step

    def save(self, step: int, wait: bool = False) -> None:
        """Copies the state and has it written; put off to the next boundary while the writer is busy.

        Args:
            step: Steps done.
            wait: Return when it is durable; for the end of a run.

        Raises:
            StateNotSaved: It has to be durable and could not be written.
        """
        if not wait and not self._writer.ready:
            self.due.put_off()
            return
        buffer = self._writer.buffer(self._specs)
        self._session.state.copy_to(buffer.views)
        taken = self._writer.save(step, buffer, self._metadata(step), wait=wait)
        if wait and not taken:
            kept = self._store.steps()
            raise StateNotSaved(
                f"the state of step {step} could not be saved to {self._store.folder}: free space there or make it "
                f"writable, and repeat the command, which goes on from step {kept[-1] if kept else 0}"
            )
        self.due.done()
        self.keep_for_rollback()

    def keep_for_rollback(self) -> None:
        """Keeps a copy of the state in memory, where the config wants to roll back."""
        if self._session.config.train.on_nan == "rollback":
            if self._rollback_state is None:
                self._rollback_state = {n: np.empty(s.shape, s.numpy_dtype) for n, s in self._specs.items()}
            self._session.state.copy_to(self._rollback_state)

    def roll_back(self) -> int:
        """Returns to the state that was last kept; returns its step."""
        assert self._rollback_state is not None, "kept at the start of a run that may roll back"
        self._session.state.restore(self._rollback_state)
        return self._session.state.step

    def close(self) -> None:
        """Finishes the checkpoint that is being written."""
        self._writer.close()

    def _metadata(self, step: int) -> Mapping[str, Any]:
        return {
            "wall_time_s": self.wall_time_s,
            "examples": self._session.examples(step),
            "metrics": self.metrics,
            "skipped_windows": self.position.as_json(),
            "seed": self._session.config.train.seed,
        }

    def _saved(self, saved: SavedCheckpoint) -> None:
        trace = self._recorder.trace
        trace.add("checkpoint", time.time() - saved.write_s, saved.write_s, saved.step)
        self._recorder.event(
            "checkpoint_saved", step=saved.step, path=saved.path, stall=saved.stall_s, duration=saved.write_s
        )

    def _failed(self, failed: FailedCheckpoint) -> None:
        self._recorder.event("checkpoint_failed", step=failed.step, reason=failed.reason)
        self._recorder.warn(failed.reason)

    def _damaged(self, damage: Exception, place: object) -> None:
        self._recorder.event("checkpoint_damaged", reason=str(damage), path=str(place))
        self._recorder.warn(f"{damage}; set aside as {place}, the one before it is used")
