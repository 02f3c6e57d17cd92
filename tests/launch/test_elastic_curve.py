"""Elastic runs with real processes that are killed: whatever happens to the workers, the curve stays, to the bit."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch import counted_samples
from tests.launch.supervised_runs import (
    PATIENCE_S,
    curve,
    events,
    generations,
    kill,
    last_step,
    pid_of_rank,
    said,
    started,
    wait_until,
)
from trainer.checkpoint.store import CheckpointStore

STEPS = 1200
EPOCHS = STEPS * counted_samples.BATCH // counted_samples.NUM_SAMPLES
# Four parts on up to three workers: some compute two of them. Dropout is keyed by the sample's place.
CONFIG = f"""\
{counted_samples.CONFIG}
train: {{steps: {STEPS}, log_every: 10, steps_per_loop: 7, virtual_workers: 4}}
checkpoint: {{every: 100000st}}
cluster: {{snapshot_every: 5}}
strategy: {{name: elastic}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""
pytestmark = pytest.mark.processes


def write_config(folder: Path) -> str:
    path = folder / "elastic.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}, name: elastic}}\n")
    return str(path)


def last_state(run_folder: Path) -> Mapping[str, np.ndarray]:
    checkpoint = CheckpointStore(run_folder / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == STEPS
    return checkpoint.arrays


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The run of one worker, which computes all parts itself."""
    folder = tmp_path_factory.mktemp("alone")
    arguments = [write_config(folder), "cluster.workers=1", "cluster.standbys=0"]
    with started("train", *arguments, FAST=str(folder)) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    return folder / "elastic"


def test_deaths_and_newcomers_change_no_bit(undisturbed, tmp_path):
    folder, fast = tmp_path / "elastic", tmp_path / "fast"
    config = write_config(tmp_path)
    with started("train", config, "cluster.workers=3", "cluster.standbys=1", FAST=str(fast)) as process:
        wait_until(lambda: len(events(folder, "worker_ready")) >= 4, process)  # the standby, too
        assert generations(folder) == [(1, 3)]
        kill(folder, 0, signal.SIGKILL, process)  # the chief; the standby takes its place
        assert generations(folder)[-1] == (2, 3)
        kill(folder, 2, signal.SIGTERM, process)  # a notice; nobody is ready to step in
        kill(folder, 1, signal.SIGKILL, process)
        assert [size for _, size in generations(folder)][:3] == [3, 3, 2]
        # Who is started meanwhile joins, perhaps before the last one died.
        wait_until(lambda: generations(folder)[-1][1] == 3, process)
        begun = last_step(folder)
        wait_until(lambda: last_step(folder) > begun, process)
        # Members that came at different steps stop at the same one, and without one of them that dies before it has.
        generation, _ = generations(folder)[-1]
        frozen = pid_of_rank(folder, generation, 2)
        os.kill(frozen, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: events(folder, "stop_requested"), process)
        os.kill(frozen, signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    saved = CheckpointStore(folder / "checkpoints").newest_verified()
    assert saved is not None and f"stopped by SIGTERM after step {saved.step}, with the state saved" in output
    assert not events(folder, "peer_accused")
    fast.touch()
    # One worker goes on with what three have saved.
    with started("train", config, "cluster.workers=1", "cluster.standbys=0", FAST=str(fast)) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(undisturbed)
    expected, state = last_state(undisturbed), last_state(folder)
    assert expected.keys() == state.keys()
    assert all(expected[name].tobytes() == state[name].tobytes() for name in expected)
    for run_folder in (undisturbed, folder):
        [count] = [values for name, values in last_state(run_folder).items() if name.endswith("count/kernel")]
        np.testing.assert_array_equal(count[:, 0], EPOCHS)
    # Nothing was trained twice: no generation went on from a snapshot.
    assert all("with the state of the survivors" in text for text in said(folder) if "goes on with" in text)
    assert run(["replay", str(folder)]) == ExitCode.DONE


def test_when_all_die_the_snapshot_in_memory_serves(undisturbed, tmp_path):
    folder, fast = tmp_path / "elastic", tmp_path / "fast"
    arguments = [write_config(tmp_path), "cluster.workers=2", "cluster.standbys=0"]
    with started("train", *arguments, FAST=str(fast)) as process:
        wait_until(lambda: last_step(folder) >= 20, process)
        for rank in (0, 1):
            os.kill(pid_of_rank(folder, 1, rank), signal.SIGKILL)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(undisturbed)
    assert any("from step" in text and "in the memory of localhost" in text for text in said(folder))
