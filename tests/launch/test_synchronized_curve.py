"""Batch normalisation over workers that are killed, as real processes: the statistics of the batch stay, to the bit."""

import signal
from pathlib import Path

import pytest

from launch.exit_code import ExitCode
from tests.chaos.test_one_curve import MODELS
from tests.launch.supervised_runs import PATIENCE_S, curve, generations, kill, last_step, started, wait_until
from trainer.checkpoint.store import CheckpointStore

STEPS = 60
CONFIG = f"""\
{MODELS["synchronized cnn"]}
train: {{steps: {STEPS}, log_every: 1, steps_per_loop: 3, virtual_workers: 4, synchronize_batch_norm: true}}
evaluate: {{every: 30st}}
checkpoint: {{every: 100000st}}
cluster: {{snapshot_every: 5}}
strategy: {{name: elastic}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""
pytestmark = pytest.mark.processes


def trained(folder: Path, workers: int, kills: bool) -> tuple[list[dict], dict[str, bytes]]:
    """The curve and the last state of a run, of which a member may be killed."""
    config, run, fast = folder / "cnn.yaml", folder / "cnn", folder / "fast"
    config.write_text(CONFIG + f"run: {{dir: {folder}, name: cnn}}\n")
    arguments = [str(config), f"cluster.workers={workers}", "cluster.standbys=0"]
    if not kills:
        fast.touch()
    with started("train", *arguments, FAST=str(fast)) as process:
        if kills:
            wait_until(lambda: last_step(run) > 0, process)
            kill(run, 0, signal.SIGKILL, process)
            fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    if kills:
        assert [size for _, size in generations(run)][:2] == [workers, workers - 1]
    checkpoint = CheckpointStore(run / "checkpoints").newest_verified()
    assert checkpoint is not None and checkpoint.step == STEPS
    return curve(run), {name: values.tobytes() for name, values in checkpoint.arrays.items()}


def test_a_chief_killed_and_another_number_of_workers_change_no_bit(tmp_path_factory):
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    assert trained(two, 2, kills=True) == trained(one, 1, kills=False)
