"""Hosts, workers and launchers that end, freeze and get notice at random: every sample still counts once an epoch."""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.chaos.killing import finish, start
from tests.launch import counted_samples
from tests.launch.supervised_runs import curve, events, last_step
from trainer.checkpoint.store import CheckpointStore

STEPS, NUM_DISTURBANCES, DEADLINE_S = 4000, 12, 120.0
EPOCHS = STEPS * counted_samples.BATCH // counted_samples.NUM_SAMPLES
TOLERANCE = 1e-4
CONFIG = f"""\
{counted_samples.CONFIG}
train: {{steps: {STEPS}, log_every: 10, steps_per_loop: 5}}
checkpoint: {{every: 500st}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""
ELASTIC = [
    *("strategy.name=multi_worker_mirrored", "cluster.workers={min: 1, max: 2}", "cluster.local.hosts=2"),
    *("cluster.snapshot_every=5", "cluster.standbys=2", "cluster.shrink_after=1s", "cluster.grow_after=2s"),
    *("cluster.local.return_after=6s", "cluster.notice=20s", "cluster.hang_after=5s", "cluster.max_failures=100"),
]
pytestmark = pytest.mark.processes


def write_config(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "counted.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def wait_until(condition: Callable[[], object], process: subprocess.Popen, output: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, output.read_text()[-3000:]
        assert time.monotonic() < deadline, output.read_text()[-3000:]
        time.sleep(0.01)


def living(launcher: int, run_folder: Path, what: str) -> list[int]:
    """The pids of the hosts or of the workers that this launcher runs now."""
    if what == "host":
        pids = {event["pid"] for event in events(run_folder, "host_started")}
    else:
        logs = [log.read_text(errors="replace") for log in run_folder.glob("logs/[0-9]*/*.log")]
        pids = {int(pid) for log in logs for pid in re.findall(r"process (\d+), is rank", log)}
    return [child.pid for child in psutil.Process(launcher).children(recursive=True) if child.pid in pids]


def test_whatever_ends_or_freezes_every_sample_counts_once_an_epoch(tmp_path, monkeypatch, chaos_long):
    if not chaos_long:
        pytest.skip("minutes long: --chaos-long")
    seed = int(os.environ.get("PHALANX_CHAOS_SEED", "0"))
    rng, fast, output = random.Random(seed), tmp_path / "fast", tmp_path / "output.txt"
    monkeypatch.setenv("FAST", str(fast))
    fast.touch()
    assert run(["train", write_config(tmp_path / "alone")]) == ExitCode.DONE
    fast.unlink()

    config, folder = write_config(tmp_path / "disturbed"), tmp_path / "disturbed" / "counted"
    process = start(config, ELASTIC, output)
    disturbances = [
        *[("host", signal.SIGKILL), ("host", signal.SIGTERM), ("worker", signal.SIGKILL), ("worker", signal.SIGTERM)],
        *[("worker", signal.SIGSTOP), ("launcher", signal.SIGKILL)],
    ]
    done: list[str] = []
    for number in range(NUM_DISTURBANCES):
        reached = last_step(folder)
        wait_until(lambda reached=reached: last_step(folder) > reached + 20, process, output)
        time.sleep(rng.uniform(0.0, 1.0))  # at any moment
        what, how = disturbances[number % len(disturbances)]
        done.append(f"{how.name} to a {what} at step {last_step(folder)}")
        if what == "launcher":
            process.kill()
            process.wait()
            process = start(config, ELASTIC, output)
        elif pids := living(process.pid, folder, what):
            os.kill(rng.choice(pids), how)
    fast.touch()
    finish(process, output)

    assert run(["replay", str(folder)]) == ExitCode.DONE
    whole, found = curve(tmp_path / "alone" / "counted"), curve(folder)
    assert [line["step"] for line in found] == [line["step"] for line in whole], (seed, done)
    largest = max(line["loss"] for line in whole)
    for line, expected in zip(found, whole, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=TOLERANCE * largest), (seed, done)
    checkpoint = CheckpointStore(folder / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == STEPS
    [kernel] = [values for name, values in checkpoint.arrays.items() if name.endswith("count/kernel")]
    np.testing.assert_array_equal(kernel[:, 0], EPOCHS, err_msg=f"PHALANX_CHAOS_SEED={seed}: {done}")
