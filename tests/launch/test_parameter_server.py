"""A training on parameter servers through the command line: every role is a real process, and is really killed."""

import os
import re
import signal
from pathlib import Path

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import PATIENCE_S, curve, events, formed, last_step, started, wait_until

# Two tables that are divided among two parameter servers, and padded batches.
CONFIG = """\
model: {name: "tests.trainer.parameter_server.models:token_model"}
task: {name: language_modelling}
data: {name: synthetic, kind: tokens, shape: [9], num_classes: 40, num_samples: 250, batch_size: 16}
train: {steps: 1000000, log_every: 10, steps_per_loop: 10, virtual_workers: 4}
optimizer: {name: adamw, weight_decay: 0.01, clip_norm: 0.5}
evaluate: {every: 200st}
checkpoint: {every: 1000000st}
observe: {tensorboard: false}
"""
SERVED = """\
cluster: {workers: 5, snapshot_every: 20, standbys: 1}
strategy: {name: parameter_server, parameter_servers: 2, min_shard_bytes: 512}
"""
# Updates are the same sums in another order.
TOLERANCE = 2e-4
pytestmark = pytest.mark.processes


def pid_of(folder: Path, rank: int) -> int:
    """Of the member that had this rank last."""
    logs = sorted((folder / "logs").glob(f"*/{rank}.log"), key=lambda path: int(path.parent.name))
    return int(re.findall(rf"process (\d+), is rank {rank}\b", logs[-1].read_text())[-1])


def generations(folder: Path) -> int:
    return max((assignment["generation"] for assignment in formed(folder)), default=0)


def test_killed_and_frozen_members_cost_nothing_that_can_be_seen_in_the_curve(tmp_path, chaos_long):
    config, folder = tmp_path / "served.yaml", tmp_path / "served"
    config.write_text(CONFIG + SERVED + f"run: {{dir: {tmp_path}}}\n")
    with started("train", str(config)) as process:

        def goes_on(steps: int = 40) -> None:
            goal = last_step(folder) + steps
            wait_until(lambda: last_step(folder) >= goal, process)

        goes_on()
        os.kill(pid_of(folder, 3), signal.SIGKILL)  # a worker: the others go on
        goes_on()
        wait_until(lambda: len(formed(folder, rank=3)) == 2, process)
        goes_on()
        assert generations(folder) == 1, "a standby has taken its place in the same generation"
        os.kill(pid_of(folder, 2), signal.SIGKILL)  # a parameter server: a new generation, from memory
        wait_until(lambda: generations(folder) == 2, process)
        goes_on()
        if chaos_long:  # TensorFlow's own waiting takes most of a minute
            os.kill(pid_of(folder, 4), signal.SIGSTOP)  # a worker that TensorFlow would wait for without end
            wait_until(lambda: len(formed(folder, rank=4)) == 3, process)
            goes_on()
        # The coordinator, which waits for it within TensorFlow, may be silent as well; then all begin anew from memory.
        assert generations(folder) in (2, 3)
        assert run(["stop", str(folder)]) == ExitCode.DONE
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    resumed = events(folder, "resumed")
    assert len(resumed) == generations(folder) - 1
    assert all(event["step"] > 0 and event["step"] % 20 == 0 for event in resumed)
    assert run(["replay", str(folder)]) == ExitCode.DONE

    lines = [line for line in curve(folder) if "split" not in line]
    last = lines[-1]["step"]
    assert [line["step"] for line in lines] == list(range(10, last + 1, 10))
    # What was saved there goes on here, and what one device computes is the same curve.
    alone = tmp_path / "alone.yaml"
    alone.write_text(CONFIG + f"run: {{dir: {tmp_path}}}\n")
    assert run(["train", str(alone), f"train.steps={last}", "strategy.name=one_device"]) == ExitCode.DONE
    expected = [line for line in curve(tmp_path / "alone") if "split" not in line]
    for line, other in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=TOLERANCE), line["step"]
        assert line["examples"] == other["examples"]
    arguments = ["strategy.name=one_device", "cluster.workers=1", f"train.steps={last + 20}", "--accept-config-change"]
    assert run(["train", str(config), *arguments]) == ExitCode.DONE
    assert [event["step"] for event in events(folder, "finished")] == [last + 20]
    assert (folder / "export" / "1" / "saved_model.pb").exists()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["cluster.workers=2"], "cluster.workers=2 must be at least 4 with strategy.name=parameter_server"),
        (["cluster.workers.min=4"], "strategy.name=parameter_server must have a fixed number of workers"),
        (["cluster.workers=1"], "strategy.name=parameter_server must have at least three workers"),
        (["data.batch_size=15"], "the number of workers that compute=2 must divide data.batch_size=15"),
        (["strategy.devices=2"], "strategy.devices=2 must not be set with strategy.name=parameter_server"),
        (["precision=mixed_float16", "strategy.synchronous=false"], "precision=mixed_float16 has one loss scale"),
        (["train.on_nan=rollback", "strategy.synchronous=false"], "train.on_nan=rollback leaves out the batches"),
        (["cluster.workers=3", "strategy.name=mirrored"], "cluster.workers=3 must have a strategy that spreads"),
    ],
)
def test_impossible_combinations_are_refused_in_one_sentence(tmp_path, capsys, settings, problem):
    config = tmp_path / "served.yaml"
    config.write_text(CONFIG.replace(", virtual_workers: 4", "") + SERVED + f"run: {{dir: {tmp_path}}}\n")
    assert run(["train", str(config), *settings]) == ExitCode.WRONG_REQUEST
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "served").exists()
