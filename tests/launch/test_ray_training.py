"""Whole runs on a Ray cluster, through the command line: real nodes, really killed."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.cluster.agent_workers import is_running
from tests.cluster.ray_nodes import ray_nodes
from tests.launch import counted_samples
from tests.launch.supervised_runs import (
    PATIENCE_S,
    curve,
    events,
    last_step,
    snapshots,
    started,
    wait_until,
    workers_of,
    write_config,
)

ON_RAY = ["cluster.kind=ray", "cluster.standbys=4"]
pytestmark = pytest.mark.processes


def ready_on_each_host(folder: Path) -> list[int]:
    hosts = [event["host"] for event in events(folder, "worker_ready")]
    return [hosts.count(host) for host in set(hosts)]


def test_a_worker_and_then_a_node_are_killed_and_the_curve_is_the_undisturbed_one(tmp_path, monkeypatch):
    fast, config, folder = tmp_path / "fast", tmp_path / "counted.yaml", tmp_path / "struck"
    config.write_text(counted_samples.ENDLESS + "strategy: {name: multi_worker_mirrored}\n")
    settings = ["cluster.workers=2", "cluster.snapshot_every=5", f"run.dir={tmp_path}"]
    with ray_nodes(2, FAST=str(fast)) as nodes:
        arguments = [*settings, *ON_RAY, f"cluster.ray.address={nodes.address}", "run.name=struck"]
        with started("train", str(config), *arguments) as process:
            # Each node has a member and two standbys: then the next generation has a member on each as well.
            wait_until(lambda: ready_on_each_host(folder) == [3, 3] and len(snapshots(folder, 1)) == 2, process)
            held = [max(snapshots(folder, 1).values())]
            os.kill(events(folder, "started")[-1]["pid"], signal.SIGKILL)
            wait_until(lambda: len(snapshots(folder, 2)) == 2, process)
            held.append(min(snapshots(folder, 2).values()))
            raylet = psutil.Process(events(folder, "resumed")[-1]["pid"]).parent().parent()
            nodes.kill(next(node for node in nodes.alive() if nodes.raylet(node) == raylet.pid))
            wait_until(lambda: snapshots(folder, 3), process)
            assert run(["stop", str(folder)]) == ExitCode.DONE
            output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    resumed = [event["step"] for event in events(folder, "resumed")]
    assert len(resumed) == 2 and all(step >= known > 0 for step, known in zip(resumed, held, strict=True))
    assert len(events(folder, "host_lost")) >= 1
    # What Ray has to say is in the log, and not between the lines of the run.
    assert "raylet" not in output and "Ray" not in output
    assert run(["replay", str(folder)]) == ExitCode.DONE
    assert not psutil.wait_procs(workers_of(folder), 10)[1]

    # The same steps on this machine, without Ray.
    steps = curve(folder)[-1]["step"]
    fast.touch()
    monkeypatch.setenv("FAST", str(fast))
    whole = ["run.name=whole", f"train.steps={steps}", "cluster.standbys=0"]
    assert run(["train", str(config), *settings, *whole]) == ExitCode.DONE
    assert curve(folder) == curve(tmp_path / "whole")


def test_without_a_cluster_one_is_started_that_only_this_machine_reaches_and_nothing_outlives_the_launcher(tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    arguments = [*ON_RAY, "train.steps=100000000", "cluster.standbys=0", "cluster.ray.cpus_per_worker=0.5"]
    environment = {"RAY_ADDRESS": "local", "TMPDIR": str(tmp_path), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    with started("train", config, *arguments, **environment) as process:
        wait_until(lambda: last_step(folder) >= 20, process)
        launcher = psutil.Process(process.pid)
        workers, family = workers_of(folder), launcher.children(recursive=True)
        assert len(workers) >= 2 and {worker.pid for worker in workers} <= {each.pid for each in family}
        # TensorFlow's own servers, which are the workers', listen on every address.
        ours = [launcher, *(each for each in family if each not in workers)]
        places = {one.laddr.ip for each in ours for one in each.net_connections("tcp") if one.status == "LISTEN"}
        assert places and all(place.removeprefix("::ffff:").startswith("127.") for place in places), places
        process.kill()
        assert not psutil.wait_procs(workers, PATIENCE_S)[1]
        deadline = time.monotonic() + PATIENCE_S
        while left := [each for each in family if is_running(each.pid)]:
            assert time.monotonic() < deadline, f"Ray outlived the launcher: {left}"
            with suppress(psutil.NoSuchProcess):
                if all(each.name() in ("ray::DashboardAgent", "ray::RuntimeEnvAgent") for each in left):
                    # They try for a minute, a constant of Ray's, to tell the head, which is gone, that their raylet is.
                    for each in left:
                        each.kill()
            time.sleep(0.05)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert "Token" not in output and "ray" not in output.lower().replace(str(tmp_path).lower(), "")


def test_what_does_not_fit_on_this_machine_is_refused_before_a_worker_starts(tmp_path, capfd):
    config = write_config(tmp_path)
    arguments = ["train", config, *ON_RAY, "cluster.ray.gpus_per_worker=1"]
    with started(*arguments, RAY_ADDRESS="local") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.NO_RESOURCES, output
    assert "2 workers with 1 CPU and 1 GPU each are needed" in output


def test_a_cluster_that_does_not_answer_is_named(tmp_path, capsys):
    assert run(["train", write_config(tmp_path), *ON_RAY, "cluster.ray.address=127.0.0.1:1"]) == ExitCode.WRONG_REQUEST
    assert "no Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
    assert not (tmp_path / "group").exists()


def test_auto_starts_no_cluster(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert run(["train", write_config(tmp_path), *ON_RAY, "cluster.ray.address=auto"]) == ExitCode.WRONG_REQUEST
    assert "no Ray cluster runs on this machine" in capsys.readouterr().err


def test_without_ray_a_run_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["train", write_config(tmp_path), *ON_RAY]) == ExitCode.WRONG_REQUEST
    assert "pip install 'phalanx[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "group").exists()
