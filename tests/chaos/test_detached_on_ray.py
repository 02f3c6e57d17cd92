"""A detached run on a real Ray cluster, whose launcher and keeper are killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.run_lock import KEEPING, read_holder
from launch.cli import run
from launch.detached.record import read_record
from launch.exit_code import ExitCode
from tests.cluster.agent_workers import is_running
from tests.cluster.ray_nodes import RayNodes, ray_nodes
from tests.launch.supervised_runs import (
    PATIENCE_S,
    curve,
    events,
    last_step,
    started,
    wait_for,
    workers_of,
    write_config,
)

ON_RAY = ["cluster.kind=ray", "cluster.standbys=4"]
pytestmark = pytest.mark.processes


@pytest.fixture
def nodes(chaos_long) -> Iterator[RayNodes]:
    if not chaos_long:
        pytest.skip("minutes long: --chaos-long; on this machine alone: tests/launch/detached/test_detach.py")
    with ray_nodes(2) as nodes:
        yield nodes


@pytest.fixture
def undisturbed(tmp_path_factory) -> Path:
    """The same run on this machine, without Ray."""
    folder = tmp_path_factory.mktemp("whole")
    with started("train", write_config(folder), "run.name=whole", OMP_NUM_THREADS="1") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    return folder / "whole"


def test_a_detached_run_outlives_its_launcher_and_its_keeper(nodes, undisturbed, tmp_path, capsys, chaos_long):
    config, folder = write_config(tmp_path), tmp_path / "group"
    nodes.fill_up(2)
    on_ray = [*ON_RAY, f"cluster.ray.address={nodes.address}"]
    with started("train", config, *on_ray, "--detach") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE and "kept by the actor phalanx-" in output, output
    try:
        wait_for(lambda: last_step(folder) >= 100, folder)
        launcher = read_holder(folder).process.pid
        os.kill(launcher, signal.SIGKILL)
        wait_for(lambda: len(events(folder, "resumed")) == 1 and last_step(folder) >= 150, folder)
        actor = read_holder(folder, KEEPING).process.pid
        assert actor not in (launcher, process.pid)
        launcher = psutil.Process(read_holder(folder).process.pid)
        os.kill(actor, signal.SIGKILL)
        psutil.wait_procs([launcher], 10)
        assert not is_running(launcher.pid), "a launcher outlived its keeper"
        wait_for(lambda: len(events(folder, "resumed")) == 2, folder)
        assert read_holder(folder, KEEPING).process.pid != actor
        assert run(["logs", "-f", "-n", "1", str(folder)]) == ExitCode.DONE
    finally:
        if read_holder(folder) or read_holder(folder, KEEPING):
            run(["stop", str(folder), "--timeout", "60"])
    assert curve(folder) == curve(undisturbed)
    assert "done after step 600" in capsys.readouterr().out
    # From the nodes' memory, which has outlived the agents.
    assert not events(folder, "checkpoint_saved")[:-1]
    assert [event["step"] >= step for event, step in zip(events(folder, "resumed"), (76, 126), strict=True)] == [
        True
    ] * 2
    assert read_record(folder).restarts == 2 and read_record(folder).exit_code == ExitCode.DONE
    assert run(["replay", str(folder)]) == ExitCode.DONE
    assert not workers_of(folder)
