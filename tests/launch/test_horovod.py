"""Runs whose gradients Horovod adds up, through the command line."""

import importlib.util
import json
import os
import signal
from importlib import metadata
from types import SimpleNamespace

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.cluster.ray_nodes import ray_nodes
from tests.launch.supervised_runs import (
    PATIENCE_S,
    curve,
    events,
    pid_of_rank,
    snapshots,
    started,
    wait_until,
    workers_of,
    write_config,
)
from trainer.strategies.horovod_installation import installation_problem, package_folder

BY_HOROVOD = "strategy.name=horovod"
PROBLEM = installation_problem(package_folder(), metadata.version("tensorflow"))
needs_horovod = pytest.mark.skipif(PROBLEM is not None, reason=PROBLEM or "")


def find_horovod(monkeypatch, folder):
    """Lets an import find Horovod there, or nowhere."""
    spec = None if folder is None else SimpleNamespace(submodule_search_locations=[str(folder)])
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name == "horovod" else found(name))


@pytest.mark.parametrize("command", [["train"], ["train", "--detach"], ["check"]], ids=" ".join)
def test_without_horovod_a_run_says_what_to_build_and_starts_nothing(tmp_path, monkeypatch, capsys, command):
    find_horovod(monkeypatch, None)
    assert run([*command, write_config(tmp_path), BY_HOROVOD]) == ExitCode.WRONG_REQUEST
    said = capsys.readouterr().err
    assert "strategy.name=horovod needs Horovod, which is not installed: build it with make horovod" in said
    assert not (tmp_path / "group").exists()


def test_one_that_was_built_for_another_tensorflow_is_refused_before_anything_starts(tmp_path, monkeypatch, capsys):
    (tmp_path / "horovod" / "tensorflow").mkdir(parents=True)
    (tmp_path / "horovod" / "tensorflow" / "mpi_lib.so").touch()
    (tmp_path / "horovod" / "metadata.json").write_text(json.dumps({"tensorflow": "2.16.1"}))
    find_horovod(monkeypatch, tmp_path / "horovod")
    assert run(["train", write_config(tmp_path), BY_HOROVOD]) == ExitCode.WRONG_REQUEST
    assert "was built for TensorFlow 2.16.1, and TensorFlow 2." in capsys.readouterr().err
    assert not (tmp_path / "group").exists()


@needs_horovod
@pytest.mark.processes
def test_a_killed_worker_is_replaced_and_the_curve_is_the_undisturbed_one_and_that_of_tensorflow(undisturbed, tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    with started("train", config, BY_HOROVOD, "cluster.standbys=2", "cluster.rehearse=true") as process:
        wait_until(lambda: max(snapshots(folder, 1).values(), default=0) >= 96, process)
        known = max(snapshots(folder, 1).values())
        os.kill(pid_of_rank(folder, 1, rank=1), signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    [resumed] = events(folder, "resumed")
    assert resumed["step"] >= known and "SIGKILL" in output
    assert run(["replay", str(folder)]) == ExitCode.DONE
    assert run(["train", config, BY_HOROVOD, "run.name=whole"]) == ExitCode.DONE
    assert curve(folder) == curve(tmp_path / "whole")
    for line, other in zip(curve(folder), curve(undisturbed), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)


@needs_horovod
@pytest.mark.processes
def test_two_hosts_of_a_ray_cluster_train_on_through_a_kill(tmp_path):
    config, folder = write_config(tmp_path), tmp_path / "group"
    settings = [BY_HOROVOD, "train.steps=3000", "cluster.snapshot_every=20"]
    with ray_nodes(2) as nodes:
        on_ray = ["cluster.kind=ray", "cluster.standbys=2", f"cluster.ray.address={nodes.address}"]
        with started("train", config, *settings, *on_ray) as process:
            wait_until(lambda: snapshots(folder, 1), process)
            os.kill(events(folder, "started")[-1]["pid"], signal.SIGKILL)
            output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert len(events(folder, "resumed")) == 1 and not workers_of(folder)
    assert run(["train", config, *settings, "run.name=whole"]) == ExitCode.DONE
    assert curve(folder) == curve(tmp_path / "whole")
