"""A slice whose hosts join a real Ray cluster by the startup script of `launch/clusters/tpu`: a run takes it whole."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.reserved_port import ReservedPort
from launch.cli import run
from launch.exit_code import ExitCode
from tests.cluster.ray_nodes import ray_nodes
from tests.launch import counted_samples
from tests.launch.supervised_runs import PATIENCE_S, curve, events, wait_for_checkpoint, wait_until, workers_of
from tests.launch.tpu.quick_cloud import started

pytest.importorskip("cloud_tpu_client", reason="cloud-tpu-client is an extra")
pytestmark = pytest.mark.processes
SCRIPT = Path(__file__).parents[3] / "launch" / "clusters" / "tpu" / "ray-node.sh"
KIND = "v5litepod-8"
PLACE = ["--project", "p", "--zone", "zone-b"]
# What a slice's hosts know of themselves, and Ray finds out; chips it looks for among the devices.
HOST = {"TPU_ACCELERATOR_TYPE": KIND, "TPU_TOPOLOGY": "2x4", "TPU_NAME": "one"}
CHIPS = '--num-cpus=1 --object-store-memory=80000000 --resources={"TPU":4}'
CONFIG = f"""\
{counted_samples.CONFIG}
train: {{steps: 1000000, log_every: 10, steps_per_loop: 5}}
checkpoint: {{every: 10st, max_overhead: null}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
strategy: {{name: one_device}}
cluster: {{kind: ray, standbys: 0, shrink_after: 2s, ray: {{slice: {KIND}}}}}
"""
LOOK = """
import json, ray, sys
from ray._private.state import available_resources_per_node
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
free = available_resources_per_node()
print(json.dumps({node["Labels"]["ray.io/tpu-worker-id"]: free[node["NodeID"]].get("TPU", 0)
    for node in ray.nodes() if node["Alive"] and "ray.io/tpu-worker-id" in node["Labels"]}))
"""


def free_chips(address: str) -> dict[str, float]:
    """How many chips of each node of a slice nobody uses."""
    look = subprocess.run([sys.executable, "-c", LOOK, address], capture_output=True, text=True, timeout=PATIENCE_S)
    return json.loads(look.stdout.splitlines()[-1]) if look.returncode == 0 else {}


def raylet_of(machine: int) -> psutil.Process:
    return next(each for each in psutil.Process(machine).children(recursive=True) if each.name() == "raylet")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets must have short paths."""
    with tempfile.TemporaryDirectory(prefix="ph-", dir="/tmp") as folder:
        yield Path(folder)


def test_a_run_takes_a_slice_whole_and_goes_on_when_a_lost_node_of_it_has_come_back(
    emulator, machines, short_folder, tmp_path, monkeypatch
):
    config, folder, fast = tmp_path / "counted.yaml", tmp_path / "sliced", tmp_path / "fast"
    config.write_text(CONFIG)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("FAST", str(fast))
    settings = [f"run.dir={tmp_path}", "run.name=sliced"]
    with ReservedPort("127.0.0.1") as one, ReservedPort("127.0.0.1") as other:
        emulator.cloud.hosts_of_node, emulator.cloud.host_ports = 2, [one.port, other.port]
    with ray_nodes(0) as ray:
        machines.environment = {
            **HOST,
            "RAY_HEAD": ray.address,
            "PHALANX_PACKAGE": "",
            # As on a machine of its own: two nodes that start at once in one folder may choose the same socket.
            "RAY_OPTIONS": f"{CHIPS} --temp-dir={short_folder}/$MACHINE",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with started("train", str(config), *settings, f"cluster.ray.address={ray.address}") as process:
            wait_until((folder / "journal.jsonl").exists, process)
            create = ["tpu", "create", "one", *PLACE, "--type", KIND, "--startup-script", str(SCRIPT)]
            assert run(create) == ExitCode.DONE
            wait_for_checkpoint(folder, process)
            assert free_chips(ray.address) == {"0": 0, "1": 0}
            (worker,) = workers_of(folder)
            assert worker.environ()["PHALANX_TPU_SLICE"] == "one"
            os.kill(raylet_of(machines.pid("one", 1)).pid, signal.SIGKILL)
            wait_until(lambda: events(folder, "resumed"), process)
            assert run(["stop", str(folder)]) == ExitCode.DONE
            output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == ExitCode.STOPPED, output
        assert f"a whole slice {KIND} is needed, and the Ray cluster has none" in output
        assert "one was lost (a node of its slice is gone)" in output and "was killed" not in output
        assert free_chips(ray.address) == {"0": 4, "1": 4}
    assert not psutil.wait_procs(workers_of(folder), 10)[1]
    # The same steps on this machine.
    steps = curve(folder)[-1]["step"]
    fast.touch()
    alone = [f"run.dir={tmp_path}", "run.name=alone", "cluster.kind=local", "cluster.ray.slice=null"]
    assert run(["train", str(config), *alone, f"train.steps={steps}"]) == ExitCode.DONE
    assert curve(folder) == curve(tmp_path / "alone")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["cluster.workers=2"], "cluster.workers=2 must be 1 with cluster.ray.slice"),
        (["cluster.ray.gpus_per_worker=1"], "cluster.ray.gpus_per_worker=1 must be 0 with cluster.ray.slice"),
    ],
)
def test_what_does_not_go_with_a_slice_is_refused(tmp_path, capsys, settings, problem):
    config = tmp_path / "counted.yaml"
    config.write_text(CONFIG.replace("one_device", "auto"))
    assert run(["train", str(config), f"run.dir={tmp_path}", *settings]) == ExitCode.WRONG_REQUEST
    assert problem in capsys.readouterr().err
