"""A run whose hosts are lost, leave with notice and come back, through the command line, with real processes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch import counted_samples
from tests.launch.supervised_runs import PATIENCE_S, curve, events, formed, last_step, said, started, wait_until
from trainer.checkpoint.store import CheckpointStore

# Sums of float32 in another order: the losses of a thousand steps differ by this much at most, relative to the largest.
TOLERANCE = 1e-4
ELASTIC = [
    *("strategy.name=multi_worker_mirrored", "cluster.workers={min: 1, max: 2}", "cluster.local.hosts=2"),
    *("cluster.snapshot_every=5", "cluster.standbys=1", "cluster.shrink_after=1s", "cluster.grow_after=1s"),
    # A standby is ready where the run shrinks to: that takes a second, whatever the machine.
    *("cluster.local.return_after=6s", "cluster.notice=16s"),
]
pytestmark = pytest.mark.processes


def write_config(folder: Path) -> str:
    path = folder / "counted.yaml"
    path.write_text(counted_samples.ENDLESS + f"run: {{dir: {folder}}}\n")
    return str(path)


def counts(run_folder: Path, step: int) -> np.ndarray:
    """How often the kept state, which is that of a step, has learned from each sample."""
    checkpoint = CheckpointStore(run_folder / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == step
    [kernel] = [values for name, values in checkpoint.arrays.items() if name.endswith("count/kernel")]
    return kernel[:, 0]


def pid_of(folder: Path, host: str) -> int:
    return [event for event in events(folder, "host_started") if event["host"] == host][-1]["pid"]


def test_hosts_come_and_go_and_the_curve_stays(tmp_path, monkeypatch):
    fast = tmp_path / "fast"
    monkeypatch.setenv("FAST", str(fast))
    config, folder = write_config(tmp_path), tmp_path / "counted"
    with started("train", config, *ELASTIC) as process:

        def sizes() -> list[int]:
            return [len(assignment["members"]) for assignment in formed(folder)]

        def trains_on() -> None:
            reached = last_step(folder)
            wait_until(lambda: last_step(folder) > reached, process)

        trains_on()
        # One of the two is the standby.
        wait_until(lambda: [event["host"] for event in events(folder, "worker_ready")].count("host-1") == 2, process)
        os.kill(pid_of(folder, "host-2"), signal.SIGKILL)
        wait_until(lambda: len(sizes()) == 3, process)
        assert sizes() == [2, 1, 2]
        trains_on()
        os.kill(pid_of(folder, "host-1"), signal.SIGTERM)
        wait_until(lambda: len(sizes()) == 4, process)
        assert "host-1 leaves: generation 4 takes over" in said(folder)
        trains_on()
        assert run(["stop", str(folder)]) == ExitCode.DONE
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    assert run(["replay", str(folder)]) == ExitCode.DONE

    # What one process computes in as many steps.
    step = events(folder, "stopped")[-1]["step"]
    fast.touch()
    assert run(["train", config, "run.name=alone", f"train.steps={step}"]) == ExitCode.DONE
    found, whole = curve(folder), curve(tmp_path / "alone")
    assert [line["step"] for line in found] == list(range(10, step + 1, 10))
    largest = max(line["loss"] for line in whole)
    for line, expected in zip(found, whole, strict=False):
        assert line["step"] == expected["step"]
        assert line["loss"] == pytest.approx(expected["loss"], abs=TOLERANCE * largest)
        assert line["examples"] == expected["examples"]
    learned = counts(folder, step)
    np.testing.assert_array_equal(learned, counts(tmp_path / "alone", step))
    epochs = step * counted_samples.BATCH // counted_samples.NUM_SAMPLES
    assert set(learned) <= {epochs, epochs + 1} and learned.sum() == step * counted_samples.BATCH
