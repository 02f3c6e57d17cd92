"""Two workers as real processes: one curve with a process alone, stopped together, killed and brought back."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.sessions import merged, small_config
from tests.trainer.workers import Workers
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics
from trainer.observe.trace import read_trace
from trainer.run_folder import RunFolder
from trainer.snapshot.file import read_snapshot
from trainer.stop_request import StopRequest
from trainer.training import run_training

# Sums in another order differ in the last bits of float32; twelve steps of Adam make that 1e-5 at most.
TOLERANCE = 2e-5
NOT_REPEATED = {"time", "examples_per_s", "data_wait"}
# Dropout and augmentation, padding that falls to one worker alone, and evaluation batches that two do not divide.
ALONE = {
    "data": {"num_samples": 90, "shape": [4, 3, 1], "num_classes": 2, "augment": ["flip", "noise=0.1"]},
    "train": {"log_every": 2, "steps_per_loop": 5},
    "evaluate": {"every": "1ep", "batch_size": 13},
    "checkpoint": {"every": "5st", "max_overhead": None, "keep": 9},
    "observe": {"tensorboard": False},
}
TOGETHER = merged(ALONE, {"strategy": {"name": "multi_worker_mirrored"}})

pytestmark = pytest.mark.processes


def curve(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in NOT_REPEATED} for line in read_metrics(folder / "metrics.jsonl")]


def final_arrays(folder: Path) -> dict[str, np.ndarray]:
    checkpoint = CheckpointStore(folder / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == 12
    return dict(checkpoint.arrays)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run folder of an undisturbed run of two workers."""
    folder = tmp_path_factory.mktemp("whole")
    with Workers(folder, TOGETHER, generation=4) as workers:
        chief, other = workers.outcomes()
    assert chief == other and chief["step"] == 12 and chief["stopped"] is None
    return folder


def test_the_curve_is_that_of_a_process_alone(whole, tmp_path):
    run = RunFolder(tmp_path)
    alone = run_training(small_config(**ALONE), run, StopRequest())
    expected, found = curve(tmp_path), curve(whole)
    assert [line["step"] for line in found if "split" not in line] == [2, 4, 6, 8, 10, 12]
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    assert "auc" in found[-1]  # which needs every sample's score from the worker that computed it
    for line, other in zip(found, expected, strict=True):
        for name, value in line.items():
            assert value == (pytest.approx(other[name], rel=TOLERANCE) if name != "split" else other[name]), name
    for name, values in final_arrays(whole).items():
        expected_values = alone.session.state.variables[name].numpy()
        np.testing.assert_allclose(values, expected_values, rtol=1e-3, atol=TOLERANCE, err_msg=name)


def test_only_the_chief_writes_and_every_worker_traces(whole):
    assert {event["rank"] for event in read_journal(whole / "journal.jsonl")} == {0}
    assert {event["generation"] for event in read_journal(whole / "journal.jsonl")} == {4}
    for rank in (0, 1):
        spans = read_trace(whole / f"trace/{rank}.jsonl")
        assert {span["rank"] for span in spans} == {rank}
        assert {"startup", "compile", "step", "evaluate"} <= {span["name"] for span in spans}
    saved = [event["step"] for event in read_journal(whole / "journal.jsonl") if event["event"] == "checkpoint_saved"]
    assert saved == CheckpointStore(whole / "checkpoints").steps() and saved[-1] == 12


def test_killed_workers_go_on_from_a_checkpoint_or_a_snapshot_with_the_same_curve(whole, tmp_path):
    memory = [tmp_path / f"memory-{rank}" for rank in (0, 1)]
    with Workers(tmp_path / "killed", TOGETHER, snapshots=memory, snapshot_every=3) as workers:
        for worker in workers.workers:
            worker.hear_until("snapshot", step=6)
        workers.kill()
    snapshot = read_snapshot(memory[0])
    assert snapshot is not None and 6 <= snapshot.step < 12
    shutil.copytree(tmp_path / "killed", tmp_path / "killed again")

    with Workers(tmp_path / "killed", TOGETHER, generation=1) as workers:
        workers.outcomes()
    # Each host's memory may hold another step; the one whose step is taken gives its copy to both.
    with Workers(tmp_path / "killed again", TOGETHER, restore=[memory[0]] * 2, snapshots=memory) as workers:
        workers.outcomes()

    for folder, restored_from in (("killed", {5, 10}), ("killed again", {snapshot.step})):
        [resumed] = [e for e in read_journal(tmp_path / folder / "journal.jsonl") if e["event"] == "resumed"]
        assert resumed["step"] in restored_from
        assert curve(tmp_path / folder) == curve(whole), folder
        for name, values in final_arrays(whole).items():
            np.testing.assert_array_equal(final_arrays(tmp_path / folder)[name], values, err_msg=name)
    # The next snapshot has taken the place of the one restored, or not been needed any more.
    kept = read_snapshot(memory[0])
    assert kept is not None and kept.step >= snapshot.step


def test_a_stop_at_one_worker_stops_all_at_one_step_whatever_their_clocks_say(tmp_path):
    """With intervals of seconds, XLA, and gradients sent as bfloat16."""
    change = {
        "strategy": {"compression": "bfloat16"},
        "train": {"steps": 100_000, "xla": True},
        "evaluate": {"every": "0.2s"},
        "checkpoint": {"every": "0.1s"},
    }
    with Workers(tmp_path, merged(TOGETHER, change), stop_at={1: 40}) as workers:
        chief, other = workers.outcomes()
    assert 40 <= chief["step"] == other["step"] < 100_000
    assert other["stopped"] == "SIGTERM" and chief["stopped"] == "another worker"
    events = read_journal(tmp_path / "journal.jsonl")
    assert [event["step"] for event in events if event["event"] == "stopped"] == [chief["step"]]
    checkpoint = CheckpointStore(tmp_path / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == chief["step"]


def test_synchronized_statistics_are_those_of_the_whole_batch(tmp_path, long):
    change = {
        "model": {"name": "tests.trainer.strategies.normalised_model:normalised"},
        "data": {"shape": [4, 4, 2], "num_classes": 3, "augment": []},
        "train": {"synchronize_batch_norm": True, "xla": True},
    }
    with Workers(tmp_path / "two", merged(TOGETHER, change)) as workers:
        workers.outcomes()
    alone = small_config(**merged(merged(ALONE, change), {"train": {"xla": False}}))
    run_training(alone, RunFolder(tmp_path), StopRequest())
    expected, found = ([line["loss"] for line in curve(folder)] for folder in (tmp_path, tmp_path / "two"))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
