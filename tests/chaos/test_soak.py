"""An elastic run on a Ray cluster whose parts are killed every 20 seconds: it loses no step and hardly any time."""

import os
import random
import time
from pathlib import Path

import pytest

from launch.cli import run as phalanx
from launch.run_status import read_status
from tests.chaos.killing import finish, start
from tests.chaos.ray_faults import Faults, Recovery, hardware, table
from tests.cluster.ray_nodes import ray_nodes
from tests.launch.supervised_runs import curve

CONFIG = """\
model: {name: mlp, hidden: [8], dropout: 0.2}
task: {name: "tests.chaos.paced_task:Paced"}
data: {name: synthetic, shape: [6], num_classes: 3, num_samples: 256, held_out_samples: 32, batch_size: 24}
train: {log_every: 10, steps_per_loop: 10, virtual_workers: 6, xla: false}
evaluate: {every: null}
checkpoint: {every: 1000st}
cluster: {kind: ray, workers: 3, standbys: 2, max_failures: 100000}
strategy: {name: elastic}
observe: {tensorboard: false}
export: {enabled: false}
"""
PACE_S = "0.03"
EVERY_S = 20.0
# How often each is struck, of a hundred times.
STRUCK = {"worker killed": 60, "standby killed": 10, "agent killed": 15, "node killed": 15}
GOODPUT = 0.95
pytestmark = pytest.mark.processes


def test_an_hour_of_kills_costs_no_step_and_hardly_any_time(tmp_path, chaos_long):
    if not chaos_long:
        pytest.skip("needs an hour: make soak; a death alone is in tests/launch/test_elastic_curve.py")
    minutes = float(os.environ.get("PHALANX_SOAK_MINUTES", "60"))
    seed = int(os.environ.get("PHALANX_SOAK_SEED", "0"))
    rng, output = random.Random(seed), tmp_path / "output.txt"
    config, run = tmp_path / "soak.yaml", tmp_path / "struck"
    config.write_text(CONFIG)
    recoveries: list[Recovery] = []
    with ray_nodes(3, PACE_S=PACE_S) as nodes:
        overrides = [f"run.dir={tmp_path}", "run.name=struck", f"cluster.ray.address={nodes.address}"]
        finish(start(str(config), [*overrides, "train.steps=100000000", "--detach"], output), output)
        log = run / "logs" / "launcher.log"
        faults = Faults(run, nodes, None, rng)
        assert faults.wait_for_steps(20), log.read_text()[-3000:]
        began = time.monotonic()
        while time.monotonic() < began + 60 * minutes:
            time.sleep(rng.expovariate(1 / EVERY_S))  # the pace of the kills is what is given
            recovery = faults.strike(rng.choices(list(STRUCK), list(STRUCK.values()))[0])
            if recovery is not None:
                recoveries.append(recovery)
                print(f"{time.monotonic() - began:.0f} s, step {faults.step()}: {recovery}", flush=True)
        assert faults.wait_for_steps(20), log.read_text()[-3000:]
        account = read_status(run).goodput
        assert phalanx(["stop", str(run)]) == 0, log.read_text()[-3000:]
        assert "with the state saved" in log.read_text()
        struck = curve(run)
    steps = struck[-1]["step"]
    alone = ["cluster.kind=local", "cluster.workers=1", "cluster.standbys=0", f"run.dir={tmp_path}", "run.name=whole"]
    finish(start(str(config), [*alone, f"train.steps={steps}"], output), output)
    text = report(minutes, seed, steps, recoveries, account)
    print(text)
    Path(os.environ.get("PHALANX_SOAK_TABLE", str(tmp_path / "soak.md"))).write_text(text + "\n")
    assert struck == [line for line in curve(tmp_path / "whole") if line["step"] <= steps], f"PHALANX_SOAK_SEED={seed}"
    assert account["goodput"] >= GOODPUT


def report(minutes: float, seed: int, steps: int, recoveries: list[Recovery], account: dict) -> str:
    """What is kept of the hour."""
    seconds = {phase: round(value, 1) for phase, value in account["seconds"].items() if value}
    return "\n".join(
        [
            f"{time.strftime('%Y-%m-%d')}, {hardware()}, {minutes:g} minutes, seed {seed}: {len(recoveries)} kills, "
            f"{steps} steps, {account['steps_lost']} of them done again, goodput {account['goodput']:.4f}",
            f"Seconds by phase: {', '.join(f'{phase} {value}' for phase, value in seconds.items())}",
            "",
            table(recoveries),
        ]
    )
