"""Whole trainings that choose how often they save."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.sessions import merged, small_config
from tests.trainer.workers import Workers
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import Journal
from trainer.observe.metrics_log import read_metrics
from trainer.observe.trace import read_trace
from trainer.run_folder import RunFolder
from trainer.snapshot.file import read_snapshot
from trainer.snapshot.taker import SnapshotPlan
from trainer.state import TrainState
from trainer.stop_request import StopRequest
from trainer.training import run_training

LONG = {"train": {"steps": 1500, "steps_per_loop": 10, "log_every": 500}, "observe": {"tensorboard": False}}


def boundaries(folder: Path, rank: int = 0) -> list[int]:
    """The steps at which a worker came to a snapshot, whether it was taken or left out."""
    return [span["step"] for span in read_trace(folder / f"trace/{rank}.jsonl") if span["name"] == "snapshot_stall"]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def test_a_run_with_a_long_measured_stall_takes_few_snapshots_and_has_the_same_curve(tmp_path, monkeypatch):
    original = TrainState.tensors

    def tensors(state: TrainState):
        time.sleep(0.02)
        return original(state)

    monkeypatch.setattr(TrainState, "tensors", tensors)
    for every in (None, 20):
        plan = SnapshotPlan(tmp_path / f"memory-{every}", every)
        run_training(small_config(**LONG), RunFolder(tmp_path / str(every)), StopRequest(), snapshots=plan)
    assert boundaries(tmp_path / "20") == list(range(20, 1500, 20))
    assert len(boundaries(tmp_path / "None")) < 15
    assert losses(tmp_path / "None") == losses(tmp_path / "20")


def test_a_killed_process_is_counted_and_a_stopped_one_is_not(tmp_path):
    run, plan = RunFolder(tmp_path), SnapshotPlan(tmp_path / "memory", every=20)
    lengths = [small_config(**merged(LONG, {"train": {"steps": steps}})) for steps in (40, 80)]
    for config in lengths:
        run_training(config, run, StopRequest(), snapshots=plan)
    newest = CheckpointStore(run.checkpoints).newest_verified()
    assert newest is not None and newest.step == 80
    assert newest.metadata["interruptions"] == {"failures": 0, "from_disk": 0} and newest.metadata["is_last"]
    snapshot = read_snapshot(tmp_path / "memory")
    # As if the process had been killed right after it.
    assert snapshot is not None and snapshot.step < 80 and not snapshot.metadata["is_last"]
    metadata = {**snapshot.metadata, "generation": 0}
    again = RunFolder(tmp_path / "again")
    Journal(again.journal, generation=0).write("started")
    run_training(lengths[-1], again, StopRequest(), restore=replace(snapshot, metadata=metadata))
    newest = CheckpointStore(again.checkpoints).newest_verified()
    assert newest is not None and newest.metadata["interruptions"] == {"failures": 1, "from_disk": 0}


@pytest.mark.processes
def test_all_workers_of_a_group_come_to_snapshots_at_the_same_steps(tmp_path):
    """The chief's measure decides; killed workers go on with the interval that they had."""
    change = {"strategy": {"name": "multi_worker_mirrored"}, "checkpoint": {"every": "auto"}}
    config = merged(merged(LONG, {"train": {"steps": 100_000}}), change)
    memory = [tmp_path / f"memory-{rank}" for rank in (0, 1)]
    with Workers(tmp_path / "run", config, snapshots=memory, snapshot_every=None, generation=1) as workers:
        # Until the traces, which are written once a second, tell of enough.
        while min(len(boundaries(tmp_path / "run", rank)) for rank in (0, 1)) < 8:
            for worker in workers.workers:
                worker.hear_until("step")
        workers.kill()
    chief, other = (boundaries(tmp_path / "run", rank) for rank in (0, 1))
    common = min(len(chief), len(other))
    assert chief[:common] == other[:common] and chief[common - 1] - chief[common - 2] > 20

    snapshot = read_snapshot(memory[0])
    assert snapshot is not None
    kept = snapshot.metadata["intervals"]["snapshot_steps"]
    assert kept > 20
    # In so long calls, however fast they are, that the first boundary comes before anything is chosen again.
    config = merged(config, {"train": {"steps": snapshot.step + 3 * kept, "steps_per_loop": kept}})
    restore = [memory[0]] * 2
    with Workers(
        tmp_path / "again", config, snapshots=memory, snapshot_every=None, restore=restore, generation=2
    ) as workers:
        workers.outcomes()
    chief, other = (boundaries(tmp_path / "again", rank) for rank in (0, 1))
    assert chief == other and chief[0] % kept == 0
    ended = CheckpointStore(tmp_path / "again/checkpoints").newest_verified()
    assert ended is not None and ended.metadata["interruptions"] == {"failures": 1, "from_disk": 0}
