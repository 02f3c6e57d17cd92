"""Runs that make their own slice, in an emulated cloud whose hosts are processes that run the real startup script."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.reserved_port import ReservedPort
from launch.cli import run
from launch.exit_code import ExitCode
from launch.tpu_run import slice_name
from tests.launch import counted_samples
from tests.launch.supervised_runs import PATIENCE_S, curve, events, wait_for_checkpoint, wait_until, workers_of
from tests.launch.tpu.quick_cloud import started
from trainer.checkpoint.store import CheckpointStore

pytest.importorskip("cloud_tpu_client", reason="cloud-tpu-client is an extra")
# One device plays the slice's chips: what is tested is everything around the step.
CONFIG = f"""\
{counted_samples.CONFIG}
train: {{steps: 300, log_every: 10, steps_per_loop: 5}}
checkpoint: {{every: 10st, max_overhead: null}}
strategy: {{name: one_device}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""
SLICE = ["cluster.kind=tpu", "cluster.tpu.accelerator=[v5litepod-4]", "cluster.tpu.zones=[zone-a,zone-b]"]
SLICE += ["cluster.tpu.purchase=spot", "cluster.tpu.package=null", "cluster.tpu.listen=127.0.0.1"]
SLICE += [f"cluster.tpu.python={sys.executable}", "cluster.tpu.project=p", "cluster.standbys=0"]
SLICE += ["cluster.shrink_after=2s", "cluster.notice=8s"]
REACH = """
import sys, tensorflow as tf
from trainer.config.strategy import StrategyConfig
from trainer.strategies.tpu import resolver_of

where = StrategyConfig(name="tpu", tpu=sys.argv[1], tpu_zone="zone-b", tpu_project="p")
tf.config.experimental_connect_to_cluster(resolver_of(where))
print(*(device.name.split("/replica")[0] + "/task" + device.name.split("task")[1].split("/")[0]
    for device in tf.config.list_logical_devices("CPU") if "worker" in device.name))
"""
pytestmark = pytest.mark.processes


def write_config(folder: Path) -> str:
    path = folder / "sliced.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def agent_on(machine: int) -> psutil.Process:
    """The agent of the machine whose startup script this is."""
    family = psutil.Process(machine).children(recursive=True)
    return next(each for each in family if "launch.tpu_host" in each.cmdline())


def times_of(folder: Path) -> dict[str, int]:
    """When each file of a folder was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_slice_that_is_taken_away_twice_leaves_no_trace_in_the_curve(emulator, machines, tmp_path, monkeypatch):
    config, folder, fast = write_config(tmp_path), tmp_path / "sliced", tmp_path / "fast"
    compiled = tmp_path / "xla"
    monkeypatch.setenv("FAST", str(fast))
    with started("train", config, *SLICE, "train.xla=true", f"train.compile_cache={compiled}") as process:
        for times in (1, 2):
            wait_for_checkpoint(folder, process)
            # A run that resumes numbers its functions otherwise than one that begins: the second slice still compiles.
            programs = times_of(compiled)
            if times == 2:  # a machine that is shut down tells its processes first
                ended = len(events(folder, "worker_exited"))
                agent_on(machines.pid(slice_name(folder), 0)).terminate()
                wait_until(lambda ended=ended: len(events(folder, "worker_exited")) > ended, process)
                saved = max(CheckpointStore(folder / "checkpoints").steps())
            with emulator.lock:
                emulator.cloud.preempt()
            wait_until(lambda times=times: len(events(folder, "resumed")) == times, process)
        fast.touch()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    name = slice_name(folder)
    assert machines.booted == 3 and emulator.cloud.made.count(f"zone-b/{name}") == 3
    assert emulator.cloud.alive() == [] and emulator.cloud.together == 1
    for part in ("no slice yet", "zone-a: Quota", f"the slice {name} in zone-b is ready", "is preempted"):
        assert part in output
    assert [event["step"] for event in events(folder, "resumed")][1:] == [saved] and events(folder, "host_draining")
    assert events(folder, "resumed")[0]["step"] > 0
    assert not list(folder.glob("*tpu-host*")) and not list(folder.glob(".probe*"))
    assert run(["replay", str(folder)]) == ExitCode.DONE
    assert programs and programs == times_of(compiled), "the third slice compiled again"
    # The same on this machine, undisturbed.
    assert (
        run(["train", config, "run.name=whole", "train.xla=true", f"train.compile_cache={compiled}"]) == ExitCode.DONE
    )
    assert curve(folder) == curve(tmp_path / "whole")


def test_ctrl_c_gives_a_slice_of_two_hosts_back_and_a_killed_launcher_finds_its_own(
    emulator, machines, tmp_path, monkeypatch
):
    config, folder = write_config(tmp_path), tmp_path / "sliced"
    monkeypatch.setenv("FAST", str(tmp_path / "fast"))
    with ReservedPort("127.0.0.1") as one, ReservedPort("127.0.0.1") as other:
        emulator.cloud.hosts_of_node, emulator.cloud.host_ports = 2, [one.port, other.port]
    with started("train", config, *SLICE) as process:
        wait_for_checkpoint(folder, process)
        process.kill()
        process.wait()
    name = slice_name(folder)
    assert emulator.cloud.alive() == [f"zone-b/{name}"]
    # What the strategy would do with the chips of both hosts, from the first one.
    reached = subprocess.run([sys.executable, "-c", REACH, name], capture_output=True, text=True, timeout=PATIENCE_S)
    assert reached.stdout.split() == ["/job:worker/task:0", "/job:worker/task:1"], reached.stderr
    with started("resume", str(folder)) as process:
        wait_until(lambda: events(folder, "resumed"), process)
        assert machines.booted == 2, "the slice of the first launcher serves"
        (worker,) = workers_of(folder)
        assert worker.environ()["PHALANX_TPU_SLICE"] == name
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    assert emulator.cloud.alive() == []
    assert run(["status", str(folder)]) == ExitCode.DONE


def test_ctrl_c_while_there_is_no_room_takes_the_request_back(emulator, tmp_path):
    emulator.cloud.zones["zone-b"].room = "no"
    with started("train", write_config(tmp_path), *SLICE) as process:
        wait_until(lambda: f"zone-b/{slice_name(tmp_path / 'sliced')}" in emulator.cloud.alive(), process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    assert emulator.cloud.alive() == []


def test_a_run_without_a_slice_in_time_ends(emulator, tmp_path):
    emulator.cloud.zones["zone-b"].room = "no"
    with started("train", write_config(tmp_path), *SLICE, "cluster.tpu.wait=1s") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.NO_RESOURCES, output
    assert emulator.cloud.alive() == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["cluster.tpu.accelerator=[]"], "must know a type of slice: set cluster.tpu.accelerator"),
        (["cluster.tpu.zones=[]"], "must know a zone: set cluster.tpu.zones"),
        (["cluster.workers=2", "strategy.name=elastic"], "cluster.workers=2 must be 1 with cluster.kind=tpu"),
        (["cluster.tpu.purchase=on-demand", "cluster.tpu.reservation=r"], "must go with cluster.tpu.purchase=reserved"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_asked_for(emulator, tmp_path, capsys, settings, problem):
    assert run(["train", write_config(tmp_path), *SLICE, *settings]) == ExitCode.WRONG_REQUEST
    assert problem in capsys.readouterr().err
    assert emulator.requests == [] and not (tmp_path / "sliced").exists()


def test_a_refused_request_ends_the_run_at_once(emulator, tmp_path):
    emulator.fault = lambda method, path: "denied"
    with started("train", write_config(tmp_path), *SLICE) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode not in (ExitCode.DONE, ExitCode.STOPPED)
    assert "denied" in output.lower() or "not allow" in output
