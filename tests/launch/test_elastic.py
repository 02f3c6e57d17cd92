"""A run whose hosts are lost, leave with notice and come back, through the command line, with real processes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch import counted_samples
from tests.launch.supervised_runs import PATIENCE_S, curve, events, last_step, said, started, wait_until
from trainer.checkpoint.store import CheckpointStore

STEPS = 1200
EPOCHS = STEPS * counted_samples.BATCH // counted_samples.NUM_SAMPLES
# Sums of float32 in another order: the losses of 1,200 steps differ by this much at most, relative to the largest.
TOLERANCE = 1e-4
CONFIG = f"""\
{counted_samples.CONFIG}
train: {{steps: {STEPS}, log_every: 10, steps_per_loop: 5}}
checkpoint: {{every: 100000st}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""
ELASTIC = [
    *("strategy.name=multi_worker_mirrored", "cluster.workers={min: 1, max: 2}", "cluster.local.hosts=2"),
    *("cluster.snapshot_every=5", "cluster.standbys=1", "cluster.shrink_after=1s", "cluster.grow_after=1s"),
    *("cluster.local.return_after=4s", "cluster.notice=16s"),
]
pytestmark = pytest.mark.processes


def write_config(folder: Path) -> str:
    path = folder / "counted.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def counts(run_folder: Path) -> np.ndarray:
    """How often the kept state has learned from each sample."""
    checkpoint = CheckpointStore(run_folder / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == STEPS
    [kernel] = [values for name, values in checkpoint.arrays.items() if name.endswith("count/kernel")]
    return kernel[:, 0]


def pid_of(folder: Path, host: str) -> int:
    return [event for event in events(folder, "host_started") if event["host"] == host][-1]["pid"]


def test_hosts_come_and_go_and_the_curve_stays(tmp_path, monkeypatch):
    fast = tmp_path / "fast"
    (tmp_path / "alone").mkdir()
    fast.touch()
    monkeypatch.setenv("FAST", str(fast))
    assert run(["train", write_config(tmp_path / "alone")]) == ExitCode.DONE
    fast.unlink()

    config, folder = write_config(tmp_path), tmp_path / "counted"
    with started("train", config, *ELASTIC) as process:

        def sizes() -> list[int]:
            forms = [event["assignment"] for event in events(folder, "command") if event["command"] == "form"]
            return [len(part["members"]) for part in forms if part["rank"] == 0]

        wait_until(lambda: last_step(folder) >= 30, process)
        os.kill(pid_of(folder, "host-2"), signal.SIGKILL)
        wait_until(lambda: sizes() == [2, 1, 2], process)
        grown_at = last_step(folder)
        wait_until(lambda: last_step(folder) > grown_at, process)
        os.kill(pid_of(folder, "host-1"), signal.SIGTERM)
        wait_until(lambda: "host-1 leaves: generation 4 takes over" in said(folder), process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert sizes()[:3] == [2, 1, 2]
    assert run(["replay", str(folder)]) == ExitCode.DONE

    whole = curve(tmp_path / "alone" / "counted")
    assert (
        [line["step"] for line in curve(folder)] == [line["step"] for line in whole] == list(range(10, STEPS + 1, 10))
    )
    largest = max(line["loss"] for line in whole)
    for line, expected in zip(curve(folder), whole, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=TOLERANCE * largest)
        assert line["examples"] == expected["examples"]
    np.testing.assert_array_equal(counts(tmp_path / "alone" / "counted"), EPOCHS)
    np.testing.assert_array_equal(counts(folder), EPOCHS)
