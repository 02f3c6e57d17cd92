"""Whole runs on a Ray cluster, through the command line: real nodes, really killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.cluster.ray_nodes import RayNodes, ray_nodes
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics

CONFIG = """\
model: {name: mlp, hidden: [8], dropout: 0.2}
data: {name: synthetic, shape: [6], num_classes: 3, num_samples: 256, held_out_samples: 32, batch_size: 16}
train: {steps: 600, log_every: 10, steps_per_loop: 10}
evaluate: {every: 200st}
checkpoint: {every: 1000st}
cluster: {kind: ray, workers: 2, snapshot_every: 8, standbys: 4}
strategy: {name: multi_worker_mirrored}
observe: {tensorboard: false}
export: {enabled: false}
"""
PATIENCE_S = 120.0
pytestmark = pytest.mark.processes


def write_config(folder: Path) -> str:
    path = folder / "group.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def curve(run_folder: Path) -> list[dict]:
    changing = {"time", "examples_per_s", "data_wait"}
    lines = read_metrics(run_folder / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in changing} for line in lines]


def events(run_folder: Path, name: str) -> list[dict]:
    return [event for event in read_journal(run_folder / "journal.jsonl") if event["event"] == name]


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", "from launch.cli import main; main()", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def last_step(folder: Path) -> int:
    return max((line["step"] for line in read_metrics(folder / "metrics.jsonl")), default=0)


def workers_of(folder: Path) -> list[psutil.Process]:
    """All workers of a run on this machine, also standbys."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "launch.worker" in command and str(folder) in command:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with ray_nodes(2) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The same run on this machine, without Ray."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = ["cluster.kind=local", "cluster.standbys=0", "run.name=whole"]
    with started("train", write_config(folder), *arguments, OMP_NUM_THREADS="1") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    return folder / "whole"


def test_a_worker_and_then_a_node_are_killed_and_the_curve_is_the_undisturbed_one(nodes, undisturbed, tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    with started("train", config, f"cluster.ray.address={nodes.address}") as process:
        wait_until(lambda: last_step(folder) >= 100, process)
        os.kill(events(folder, "started")[-1]["pid"], signal.SIGKILL)
        wait_until(lambda: len(events(folder, "resumed")) == 1, process)
        wait_until(lambda: last_step(folder) >= 300, process)
        worker = psutil.Process(events(folder, "resumed")[-1]["pid"])
        raylet = worker.parent().parent()
        node = next(node for node in nodes.alive() if nodes.raylet(node) == raylet.pid)
        nodes.kill(node)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(undisturbed)
    assert [event["step"] >= step for event, step in zip(events(folder, "resumed"), (80, 280), strict=True)] == [
        True
    ] * 2
    assert len(events(folder, "host_lost")) >= 1
    # What Ray has to say is in the log, and not between the lines of the run.
    assert "raylet" not in output and "Ray" not in output
    assert run(["replay", str(folder)]) == ExitCode.DONE
    assert not workers_of(folder)


def test_without_a_cluster_one_is_started_that_only_this_machine_reaches_and_nothing_outlives_the_launcher(tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    arguments = ["train.steps=100000000", "cluster.standbys=1", "cluster.ray.cpus_per_worker=0.5"]
    with started("train", config, *arguments, RAY_ADDRESS="local", TMPDIR=str(tmp_path)) as process:
        wait_until(lambda: last_step(folder) >= 20, process)
        launcher = psutil.Process(process.pid)
        workers, family = workers_of(folder), launcher.children(recursive=True)
        assert len(workers) >= 2 and {worker.pid for worker in workers} <= {each.pid for each in family}
        # TensorFlow's own servers, which are the workers', listen on every address.
        ours = [launcher, *(each for each in family if each not in workers)]
        places = {one.laddr.ip for each in ours for one in each.net_connections("tcp") if one.status == "LISTEN"}
        assert places and all(place.removeprefix("::ffff:").startswith("127.") for place in places), places
        process.kill()
        assert not psutil.wait_procs(workers, 5)[1]
        # Ray's own agents look for their raylet only now and then.
        assert not psutil.wait_procs(family, 60)[1], "Ray outlived the launcher"
        output, _ = process.communicate()
    assert "Token" not in output and "ray" not in output.lower().replace(str(tmp_path).lower(), "")


def test_what_does_not_fit_on_this_machine_is_refused_before_a_worker_starts(tmp_path, capfd):
    config = write_config(tmp_path)
    arguments = ["train", config, "cluster.ray.gpus_per_worker=1"]
    with started(*arguments, RAY_ADDRESS="local") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.NO_RESOURCES, output
    assert "2 workers with 1 CPU and 1 GPU each are needed" in output


def test_a_cluster_that_does_not_answer_is_named(tmp_path, capsys):
    assert run(["train", write_config(tmp_path), "cluster.ray.address=127.0.0.1:1"]) == ExitCode.WRONG_REQUEST
    assert "no Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
    assert not (tmp_path / "group").exists()


def test_auto_starts_no_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert run(["train", write_config(tmp_path), "cluster.ray.address=auto"]) == ExitCode.WRONG_REQUEST
    assert "no Ray cluster runs on this machine" in capsys.readouterr().err


def test_without_ray_a_run_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["train", write_config(tmp_path)]) == ExitCode.WRONG_REQUEST
    assert "pip install 'phalanx[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "group").exists()
