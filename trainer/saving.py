"""What a run saves: checkpoints and snapshots, on threads beside the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainer.checkpoint.format import Checkpoint, DamagedCheckpoint, read_checkpoint
from trainer.checkpoint.host_buffer import ArraySpec
from trainer.checkpoint.store import CheckpointStore
from trainer.checkpoint.writer import CheckpointWriter, FailedCheckpoint, SavedCheckpoint
from trainer.config.checkpoint import CheckpointConfig
from trainer.config.interval import Interval
from trainer.due import Due
from trainer.group import Group
from trainer.intervals.choice import EVENT, Chosen, sentence
from trainer.intervals.chooser import Chooser
from trainer.intervals.interruptions import Exposure, Interruptions
from trainer.intervals.snapshot_interval import FIRST_STEPS, SnapshotInterval
from trainer.position import Position
from trainer.recorder import Recorder
from trainer.rollback import RollbackState
from trainer.run_folder import RunFolder
from trainer.session import Session
from trainer.snapshot.file import Snapshot, SnapshotMissing
from trainer.snapshot.taker import SnapshotPlan, SnapshotTaker
from trainer.strategies.strategy import Place

# Until what a checkpoint costs has been measured.
_CHECKPOINTS_UNTIL_CHOSEN = Interval(60, "s")


class StateNotSaved(RuntimeError):
    """The last state of a run could not be written. The message is one sentence for the user."""


class Saver:
    """Saves the training state and brings it back.

    In a group the chief writes the checkpoints, every worker reads them, and each has the snapshots of its host.

    Args:
        session: Whose state it is.
        folder: Of the run.
        recorder: Told of every checkpoint and snapshot.
        group: Of the workers; None for a process alone.
        snapshots: Where and how often snapshots are taken; None for none.
        on_snapshot: Called, on another thread, with the step of each snapshot that a kill cannot take back.
        on_checkpoint: Called, on another thread, with the step of each checkpoint that is durable; by the chief alone.
        exposure: What can fail; None for one host of the usual kind.

    Attributes:
        due: When a checkpoint is.
        snapshot_interval: Steps between two snapshots.
        position: Skipped windows of the data; restored with the state.
        rollback: The state that a roll-back returns to; saved and restored with the state.
        metrics: The newest evaluation, stored with each checkpoint to find the best.
    """

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        recorder: Recorder,
        group: Group | None = None,
        snapshots: SnapshotPlan | None = None,
        on_snapshot: Callable[[int], None] | None = None,
        on_checkpoint: Callable[[int], None] | None = None,
        exposure: Exposure | None = None,
    ) -> None:
        config: CheckpointConfig = session.config.checkpoint
        regrouping = session.strategy.regrouping
        self._gather = regrouping.gather if regrouping is not None and regrouping.gathers else None
        if self._gather is not None:
            snapshots = None  # a whole state takes all workers; each part of it is held by two of them
        self._session, self._recorder, self._group = session, recorder, group
        self._on_snapshot, self._on_checkpoint = on_snapshot, on_checkpoint
        self._store = CheckpointStore(folder.checkpoints, config.keep, config.best_metric, config.best_mode)
        self._max_overhead = config.max_overhead
        self._writer: CheckpointWriter | None = None
        if group is None or group.is_chief:
            self._open_writer()
        self._specs = {name: ArraySpec(*spec) for name, spec in session.state.shapes().items()}
        self.rollback = RollbackState(session)
        self._snapshot_specs = {**self._specs, **self.rollback.specs(self._specs)}
        self._snapshot_path = snapshots.path if snapshots else None
        self._snapshots = self._open_snapshots(self._snapshot_path) if self._snapshot_path else None
        self._wall_time_before_s, self._started = 0.0, time.monotonic()
        self.due = Due(
            _CHECKPOINTS_UNTIL_CHOSEN if config.every == "auto" else config.every, session.order.steps_per_epoch
        )
        self.snapshot_interval = SnapshotInterval(snapshots and (snapshots.every or FIRST_STEPS))
        self._shares_interval = snapshots is not None and snapshots.every is None
        self._chooser = Chooser(
            self.snapshot_interval if self._shares_interval else None,
            self.due if config.every == "auto" else None,
            has_snapshots=snapshots is not None,
            exposure=exposure or Exposure(),
            most_share=config.max_overhead,
            on_chosen=self._chosen,
        )
        self.position = Position()
        self.metrics: dict[str, float] = {}

    @property
    def gathers(self) -> bool:
        """Whether all members of the group must call `save` after the same step."""
        return self._gather is not None

    @property
    def ready(self) -> bool:
        """Whether a checkpoint would be taken now."""
        return self._writer is None or self._writer.ready

    @property
    def wall_time_s(self) -> float:
        """Seconds of all processes that worked on this run, as far as their work is kept."""
        return self._wall_time_before_s + time.monotonic() - self._started

    def call_begins(self) -> None:
        """A call of the inner loop begins: what it takes longer beside a write counts as the cost of saving."""
        snapshots, writer = self._snapshots, self._writer
        self._chooser.call_begins(snapshots is not None and not snapshots.ready, writer is not None and writer.busy)

    def call_ended(self, num_steps: int) -> None:
        """The call, which compiled nothing, took so many steps."""
        self._chooser.call_ended(num_steps, self.wall_time_s)

    def restore(self, snapshot: Snapshot | None = None) -> int | None:
        """Restores a snapshot, or without one the newest good checkpoint; the same on every worker of a group.

        Returns:
            Its step; None where there is none, and the state is as built.

        Raises:
            ValueError: The state does not fit the model.
            SnapshotMissing: Another worker's is of another step.
        """
        found = snapshot or self._newest_checkpoint()
        agreement = self._session.strategy.agreement
        if agreement is not None:
            # A worker that restores another step, or none, would train on with other weights than the rest.
            own_step = -1 if found is None else found.step
            chief_step = agreement.from_chief(own_step)
            if snapshot is None and chief_step != own_step and chief_step >= 0:
                found = read_checkpoint(self._store.path(chief_step))
            elif chief_step != own_step:
                raise SnapshotMissing(
                    f"this worker is to restore step {own_step} and the chief step {chief_step} (-1 is none): "
                    "give all workers of a generation the same snapshot"
                )
        self._remember(found, from_disk=snapshot is None)
        if found is None:
            return None
        self._session.state.restore(found.arrays)
        self.rollback.restore(found.arrays)
        self.position = Position(found.metadata.get("skipped_windows", ()))
        self.metrics = dict(found.metadata.get("metrics") or {})
        self._wall_time_before_s = float(found.metadata.get("wall_time_s", 0.0))
        return found.step

    def _remember(self, found: Snapshot | Checkpoint | None, from_disk: bool) -> None:
        """What an earlier process has measured and seen, so that the intervals need not be found anew."""
        metadata = {} if found is None else found.metadata
        first = 0 if self._group is None else 1
        self._chooser.interruptions = Interruptions.from_json(metadata.get("interruptions")).after_restore(
            self._recorder.generation - metadata.get("generation", first),
            was_in_order=bool(metadata.get("is_last")),
            from_disk=from_disk,
        )
        if "intervals" in metadata:
            self._chooser.remember(metadata["intervals"])
        agreement = self._session.strategy.agreement
        if self._shares_interval and agreement is not None:
            self.snapshot_interval.steps = agreement.from_chief(self.snapshot_interval.steps or FIRST_STEPS)

    def _newest_checkpoint(self) -> Checkpoint | None:
        damages: list[str] = []

        def note(damage: DamagedCheckpoint, place: Path | None) -> None:
            self._recorder.event("checkpoint_damaged", reason=str(damage), path=str(place))
            damages.append(f"{damage}{f'; set aside as {place}' if place else ''}")

        found = self._store.newest_verified(note, set_aside=self._writer is not None)
        if damages and self._writer is not None:  # the other workers of a group would only repeat it
            for damage in damages:
                self._recorder.warn(damage)
            if found is None:
                self._recorder.event("began_anew", damaged=len(damages))
                self._recorder.warn("no good checkpoint is left: the training begins anew from step 0")
            else:
                self._recorder.warn(f"the checkpoint of step {found.step} is used")
        return found

    def carried(self) -> dict[str, Any]:
        """What belongs to the state besides the variables, for a worker that takes it over."""
        return {
            "metrics": self.metrics,
            "wall_time_s": self.wall_time_s,
            "snapshot_steps": self.snapshot_interval.steps,
            "interruptions": self._chooser.interruptions.to_json(),
        }

    def move_to(self, place: Place) -> None:
        """Goes on in another group, perhaps as its chief, or as the one that keeps its host's snapshot."""
        if place.step is not None:
            self.take_over(place.carried)
        if place.group.is_chief and self._writer is None:
            self._open_writer()
        path = place.joined.snapshots if self.snapshot_interval.steps is not None else None
        if path != self._snapshot_path:
            if self._snapshots is not None:
                self._snapshots.close()
            self._snapshot_path = path
            self._snapshots = self._open_snapshots(path) if path else None

    def take_over(self, carried: Mapping[str, Any]) -> None:
        """Takes over what another worker has handed on with its state."""
        self.metrics = dict(carried["metrics"])
        self._wall_time_before_s, self._started = float(carried["wall_time_s"]), time.monotonic()
        self.snapshot_interval.steps = carried["snapshot_steps"]
        self._chooser.interruptions = Interruptions.from_json(carried["interruptions"])

    def save(self, step: int, wait: bool = False) -> None:
        """Copies the state and has it written; for a process that is `ready`.

        Args:
            step: Steps done.
            wait: Return when it is durable; for the end of a run.

        Raises:
            StateNotSaved: It has to be durable and could not be written.
        """
        if self._writer is not None:
            began = time.monotonic()
            kept = self.rollback.arrays(step)
            buffer = self._writer.buffer(self._snapshot_specs if kept else self._specs)
            self._session.state.copy_to(buffer.views)
            if self._gather is not None:
                self._gather(buffer.views)
            for name, values in kept.items():
                np.copyto(buffer.views[name], values)
            taken = self._writer.save(step, buffer, self._metadata(step, is_last=wait), wait=wait)
            if taken and not wait:
                self._chooser.checkpoint.begins(time.monotonic() - began)
            if wait and not taken:
                kept = self._store.steps()
                raise StateNotSaved(
                    f"the state of step {step} could not be saved to {self._store.folder}: free space there or make "
                    f"it writable, and repeat the command, which goes on from step {kept[-1] if kept else 0}"
                )
        elif self._gather is not None:
            self._gather(None)
        self.due.done()

    def take_snapshot(self, step: int, is_last: bool = False) -> None:
        """Has the state copied to the host's memory, unless the snapshot before is still being written."""
        if self._snapshots is None or (self._chooser.leaves_out_snapshot and not is_last):
            return
        if self._snapshots.ready:
            began = time.monotonic()
            tensors = {**self._session.state.tensors(), **self.rollback.arrays()}
            self._snapshots.take(step, tensors, self._metadata(step, is_last))
            self._chooser.snapshot.begins(time.monotonic() - began)

    def hand_over(self, step: int) -> None:
        """Takes the last snapshot of this process and waits for it: whoever goes on need not wait for the disk."""
        if self._snapshots is not None:
            self._snapshots.finish()
            self.take_snapshot(step, is_last=True)
            self._snapshots.finish()

    def close(self) -> None:
        """Finishes the checkpoint and the snapshot that are being written."""
        if self._snapshots is not None:
            self._snapshots.close()
        if self._writer is not None:
            self._writer.close()

    def _open_writer(self) -> None:
        self._store.prepare()
        self._writer = CheckpointWriter(
            self._store,
            on_saved=self._saved,
            on_failed=self._failed,
            before_commit=self._recorder.sync,
            max_overhead=self._max_overhead,
        )

    def _open_snapshots(self, path: Path) -> SnapshotTaker | None:
        try:
            return SnapshotTaker(path, self._snapshot_specs, self._snapshot_taken, self._snapshot_failed)
        except OSError as error:
            self._snapshot_failed(error)
            return None

    def _metadata(self, step: int, is_last: bool) -> Mapping[str, Any]:
        return {
            "wall_time_s": self.wall_time_s,
            "examples": self._session.examples(step),
            "metrics": self.metrics,
            "skipped_windows": self.position.as_json(),
            "seed": self._session.config.train.seed,
            "generation": self._recorder.generation,
            "is_last": is_last,
            "interruptions": self._chooser.interruptions.to_json(),
            "intervals": self._chooser.to_json(),
        }

    def _saved(self, saved: SavedCheckpoint) -> None:
        trace = self._recorder.trace
        trace.add("checkpoint", time.time() - saved.write_s, saved.write_s, saved.step)
        self._chooser.checkpoint.write_s = saved.write_s
        self._recorder.event(
            "checkpoint_saved", step=saved.step, path=saved.path, stall=saved.stall_s, duration=saved.write_s
        )
        if self._on_checkpoint:
            self._on_checkpoint(saved.step)

    def _failed(self, failed: FailedCheckpoint) -> None:
        self._recorder.event("checkpoint_failed", step=failed.step, reason=failed.reason)
        self._recorder.warn(failed.reason)

    def _snapshot_taken(self, step: int, began_at: float, duration_s: float) -> None:
        self._recorder.trace.add("snapshot", began_at, duration_s, step)
        self._chooser.snapshot.write_s = duration_s
        if self._on_snapshot:
            self._on_snapshot(step)

    def _snapshot_failed(self, error: Exception) -> None:
        self._recorder.event("snapshot_failed", reason=str(error))
        self._recorder.warn(
            f"no snapshots are taken any more ({error}); a lost worker is replaced from the newest checkpoint: "
            "free memory on the host's /dev/shm"
        )

    def _chosen(self, chosen: Chosen) -> None:
        record = chosen.to_record()
        self._recorder.event(EVENT, **record)
        self._recorder.say(sentence(record))
