"""Options of elastic runs with real processes, one of which dies or computes wrongly: the curve stays, to the bit."""

import os
import signal
from pathlib import Path

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import PATIENCE_S, curve, events, last_step, pid_of_rank, said, started, wait_until
from tests.launch.test_elastic_curve import CONFIG, generations, last_state
from trainer.checkpoint.store import CheckpointStore

pytestmark = pytest.mark.processes
# Adam has something to share out.
ADAM = CONFIG.replace("name: sgd, learning_rate: 0.25, momentum: 0.0", "name: adam, learning_rate: 0.003")

# Gradients that fill a bucket.
LARGE = ADAM.replace("tests.launch.counted_samples:model", "tests.chaos.large_model:model")


@pytest.fixture(autouse=True)
def _takes_minutes(chaos_long):
    if not chaos_long:
        pytest.skip("takes minutes: --chaos-long; the same with threads is in tests/trainer/strategies")


def write(folder: Path, text: str, options: str) -> str:
    path = folder / "elastic.yaml"
    path.write_text(text + f"run: {{dir: {folder}}}\nelastic: {options}\n")
    return str(path)


def train_alone(config: str, *overrides: str, **environment: str) -> None:
    with started("train", config, "cluster.workers=1", "cluster.standbys=0", *overrides, **environment) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output


def test_a_process_that_computes_wrongly_is_ended_and_its_host_set_aside(tmp_path):
    fast, wrong = tmp_path / "fast", tmp_path / "wrong"
    text = CONFIG.replace("tests.launch.counted_samples:Counting", "tests.chaos.silent_fault:Wrong")
    config, folder = write(tmp_path, text, "{check_every: 1st}"), tmp_path / "checked"
    sizes = ["cluster.workers={min: 2, max: 3}", "cluster.standbys=0", "cluster.local.hosts=3"]
    arguments = [config, *sizes, "run.name=checked"]
    with started("train", *arguments, FAST=str(fast), WRONG=str(wrong)) as process:
        wait_until(lambda: last_step(folder) >= 20, process)
        assert generations(folder) == [(1, 3)]
        wrong.write_text(str(pid_of_rank(folder, 1, 1)))
        wait_until(lambda: generations(folder)[-1][0] > 1, process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    [event, *_] = events(folder, "damage_found")
    assert event["is_proven"] and len(event["suspects"]) == 1
    assert any("computes wrongly and is set aside" in text for text in said(folder))
    assert any("and is ended: generation 2 goes on with the state of the survivors" in text for text in said(folder))
    assert run(["replay", str(folder)]) == ExitCode.DONE
    train_alone(config, FAST=str(fast))
    assert curve(folder) == curve(tmp_path / "elastic")


@pytest.mark.parametrize(
    ("options", "text", "plain"),
    [
        ("{shard_optimizer: true}", ADAM, ["elastic.shard_optimizer=false"]),
        ("{outer_every: 10}", ADAM, []),
        ("{overlap: always, bytes_per_bucket: 64KiB}", LARGE, ["elastic.overlap=never"]),
    ],
    ids=["sharded", "outer", "beside"],
)
def test_killed_workers_change_no_bit(tmp_path, options, text, plain):
    fast = tmp_path / "fast"
    config, folder = write(tmp_path, text, options), tmp_path / "killed"
    arguments = [config, "cluster.workers=3", "cluster.standbys=1", "run.name=killed", "checkpoint.every=50st"]
    with started("train", *arguments, FAST=str(fast)) as process:
        wait_until(lambda: len(events(folder, "worker_ready")) >= 4, process)
        for rank in (0, 2):
            generation, _ = generations(folder)[-1]
            begun = last_step(folder)
            wait_until(lambda begun=begun: last_step(folder) > begun, process)
            os.kill(pid_of_rank(folder, generation, rank), signal.SIGKILL)
            wait_until(lambda generation=generation: generations(folder)[-1][0] > generation, process)
        wait_until(lambda: generations(folder)[-1][1] == 3, process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert all("with the state of the survivors" in text for text in said(folder) if "goes on with" in text)
    assert run(["replay", str(folder)]) == ExitCode.DONE
    train_alone(config, *plain, FAST=str(fast))
    assert curve(folder) == curve(tmp_path / "elastic")
    expected, state = last_state(tmp_path / "elastic"), last_state(folder)
    assert expected.keys() == state.keys()
    assert all(expected[name].tobytes() == state[name].tobytes() for name in expected)


def test_an_interrupted_sharded_run_resumes_with_another_number_of_workers(tmp_path):
    fast = tmp_path / "fast"
    config, folder = write(tmp_path, ADAM, "{shard_optimizer: true}"), tmp_path / "resumed"
    with started("train", config, "cluster.workers=3", "cluster.standbys=0", "run.name=resumed", FAST="/") as process:
        wait_until(lambda: last_step(folder) >= 100, process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    assert 0 < CheckpointStore(folder / "checkpoints").steps()[-1] < 1200
    train_alone(config, "run.name=resumed", "elastic.shard_optimizer=false", FAST=str(tmp_path))
    train_alone(config, FAST=str(fast.parent))
    assert curve(folder) == curve(tmp_path / "elastic")
