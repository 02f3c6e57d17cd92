"""A run on a Ray cluster whose parts die, hang and come back at random ends with the undisturbed curve, to the bit."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch.cli import run as phalanx
from tests.chaos.killing import finish, start
from tests.chaos.ray_faults import FAULTS, Faults, Recovery, hardware, table
from tests.cluster.ray_nodes import ray_nodes
from tests.conftest import SmallDisk, may_mount
from trainer.observe.metrics_log import read_metrics

CONFIG = """\
model: {name: mlp, hidden: [8], dropout: 0.2}
data: {name: synthetic, shape: [6], num_classes: 3, num_samples: 256, held_out_samples: 32, batch_size: 16}
train: {steps: 1, log_every: 10, steps_per_loop: 10}
evaluate: {every: 5000st}
checkpoint: {every: 100st, max_overhead: null}
cluster: {kind: ray, workers: 2, snapshot_every: 8, standbys: 2, max_failures: 1000}
strategy: {name: multi_worker_mirrored}
observe: {tensorboard: false}
export: {enabled: false}
"""
NOT_REPEATED = {"time", "examples_per_s", "data_wait"}
pytestmark = pytest.mark.processes


def curve(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in NOT_REPEATED} for line in read_metrics(folder / "metrics.jsonl")]


@contextmanager
def disk_of_its_own(folder: Path) -> Iterator[SmallDisk | None]:
    """A folder on a disk that can be filled up; gives None where nothing may be mounted."""
    folder.mkdir()
    if not may_mount():
        yield None
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_random_faults_leave_the_curve_as_it_is(tmp_path, chaos_long):
    if not chaos_long:
        pytest.skip("needs minutes: --chaos-long; the short one is tests/launch/test_ray_training.py")
    minutes = float(os.environ.get("PHALANX_CHAOS_MINUTES", "10"))
    seed = int(os.environ.get("PHALANX_CHAOS_SEED", "0"))
    rng, output = random.Random(seed), tmp_path / "output.txt"
    config = tmp_path / "group.yaml"
    config.write_text(CONFIG)
    recoveries: list[Recovery] = []
    with ray_nodes(3) as nodes, disk_of_its_own(tmp_path / "disk") as disk:
        run = tmp_path / "disk" / "struck"
        overrides = [f"run.dir={run.parent}", f"run.name={run.name}", f"cluster.ray.address={nodes.address}"]
        # Longer than the faults last; the whole run is then as long as the struck one came.
        finish(start(str(config), [*overrides, "train.steps=100000000", "--detach"], output), output)
        log = run / "logs" / "launcher.log"
        faults = Faults(run, nodes, disk, rng)
        ends, order = time.monotonic() + 60 * minutes, []
        while time.monotonic() < ends:
            assert faults.wait_for_steps(rng.randint(20, 400)), log.read_text()[-3000:]
            order = order or rng.sample(FAULTS, len(FAULTS))
            recovery = faults.strike(order.pop())
            if recovery is not None:
                recoveries.append(recovery)
                print(recovery, flush=True)
        assert faults.wait_for_steps(20)
        assert phalanx(["stop", str(run)]) == 0, log.read_text()[-3000:]
        struck = curve(run)
    steps = struck[-1]["step"]
    whole = [
        "run.name=whole",
        "cluster.kind=local",
        "cluster.standbys=0",
        f"train.steps={steps}",
        f"run.dir={tmp_path}",
    ]
    finish(start(str(config), whole, output), output)
    text = f"{time.strftime('%Y-%m-%d')}, {hardware()}, {minutes:g} minutes, seed {seed}; medians in seconds\n\n"
    text += table(recoveries)
    print(text)
    (Path(os.environ.get("PHALANX_CHAOS_TABLE", str(tmp_path / "recovery.md")))).write_text(text + "\n")
    undisturbed = [line for line in curve(tmp_path / "whole") if line["step"] <= steps and "split" not in line]
    assert [line for line in struck if "split" not in line] == undisturbed, f"PHALANX_CHAOS_SEED={seed}"
    possible = set(FAULTS) - (set() if disk else {"disk full"})
    assert {recovery.fault for recovery in recoveries} == possible or minutes < 5
