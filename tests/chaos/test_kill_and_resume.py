"""Killed at any moment and started again, a run draws the curve that it would have drawn, to the bit."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from tests.chaos.killing import PHASES, Moment, finish, kill_at, start
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics

# Every few steps something to interrupt: a logged line, a checkpoint, an evaluation.
OFTEN = ["checkpoint.max_overhead=null", "export.enabled=false", "observe.tensorboard=false"]
MNIST = [*OFTEN, "train.log_every=5", "train.steps_per_loop=5", "checkpoint.every=5st", "evaluate.every=25st"]
SHAKESPEARE = [
    *OFTEN,
    *["train.epochs=null", "train.log_every=2", "train.steps_per_loop=2", "checkpoint.every=4st", "evaluate.every=6st"],
    *["data.context=16", "data.batch_size=4", "optimizer.schedule.warmup=5st"],
]
# config, overrides, steps and number of kills: short, and as `make chaos` does it.
# The short form is killed twice in each config, in every phase once, and its transformer is as small as one can be.
CASES = {
    "mnist": (MNIST, ["train.epochs=1"], 125, ["train.epochs=5"], 625, PHASES[:2]),
    "shakespeare_lm": (
        SHAKESPEARE,
        ["train.steps=36", "model.layers=1", "model.width=16", "model.heads=2", "data.held_out_fraction=0.001"],
        36,
        ["train.steps=400", "data.held_out_fraction=0.002"],
        400,
        PHASES[2:],
    ),
}
NOT_REPEATED = {"time", "examples_per_s", "data_wait"}
pytestmark = pytest.mark.processes


def curve(run: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in NOT_REPEATED} for line in read_metrics(run / "metrics.jsonl")]


@pytest.mark.parametrize("name", CASES)
def test_killed_runs_end_with_the_undisturbed_curve(name, tmp_path, chaos_long):
    base, short, short_steps, long, long_steps, short_phases = CASES[name]
    length, steps = (long, long_steps) if chaos_long else (short, short_steps)
    phases = PHASES * 5 if chaos_long else short_phases
    num_kills = len(phases)
    overrides = [*base, *length, f"run.dir={tmp_path}"]
    config, output = f"configs/{name}.yaml", tmp_path / "output.txt"
    seed = int(os.environ.get("PHALANX_CHAOS_SEED", "0"))
    rng = random.Random(seed)

    finish(start(config, [*overrides, "run.name=whole"], output), output)
    for i, phase in enumerate(phases):
        moment = Moment(phase, step=steps * (i + 1) // (num_kills + 2))
        process = start(config, [*overrides, "run.name=killed"], output)
        kill_at(process, tmp_path / "killed", moment, rng)
    finish(start(config, [*overrides, "run.name=killed"], output), output)

    assert curve(tmp_path / "killed") == curve(tmp_path / "whole"), f"PHALANX_CHAOS_SEED={seed}"
    ends = [CheckpointStore(tmp_path / run / "checkpoints").newest_verified() for run in ("killed", "whole")]
    killed, whole = ends
    assert killed is not None and whole is not None and killed.step == whole.step == steps
    for array, values in whole.arrays.items():
        np.testing.assert_array_equal(killed.arrays[array], values, err_msg=array)
    resumed = [event for event in read_journal(tmp_path / "killed/journal.jsonl") if event["event"] == "resumed"]
    # What follows a kill resumes, but for a start that is killed before it could.
    assert len(resumed) >= max(1, num_kills - phases.count("start-up") - 1)
