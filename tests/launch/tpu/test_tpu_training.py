"""Runs that make their own slice, in an emulated cloud whose hosts are processes that run the real startup script."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.tpu.patience import WallClock
from launch.cli import run
from launch.exit_code import ExitCode
from launch.tpu_run import slice_name
from tests.cluster.tpu.emulated_cloud import Zone
from tests.cluster.tpu.emulated_machines import EmulatedMachines, machines_of
from tests.cluster.tpu.emulator import Emulator
from tests.launch import counted_samples
from tests.launch.supervised_runs import PATIENCE_S, curve, events, started, wait_until
from trainer.checkpoint.store import CheckpointStore

pytest.importorskip("cloud_tpu_client", reason="cloud-tpu-client is an extra")
# One device plays the slice's chips: what is tested is everything around the step.
CONFIG = f"""\
{counted_samples.CONFIG}
train: {{steps: 300, log_every: 10, steps_per_loop: 5}}
checkpoint: {{every: 20st, max_overhead: null}}
strategy: {{name: one_device}}
observe: {{tensorboard: false}}
export: {{enabled: false}}
"""
SLICE = ["cluster.kind=tpu", "cluster.tpu.accelerator=[v5litepod-4]", "cluster.tpu.zones=[zone-a,zone-b]"]
SLICE += ["cluster.tpu.purchase=spot", "cluster.tpu.package=null", "cluster.tpu.listen=127.0.0.1"]
SLICE += [f"cluster.tpu.python={sys.executable}", "cluster.tpu.project=p", "cluster.standbys=0"]
pytestmark = pytest.mark.processes


@pytest.fixture
def emulator(tmp_path, monkeypatch) -> Iterator[Emulator]:
    """A cloud in whose first zone there is no room, and in the second soon."""
    quick = Zone(queue_s=1.0, create_s=0.5, delete_s=0.2)
    emulator = Emulator(WallClock(), {"zone-a": Zone(room="no quota"), "zone-b": quick})
    monkeypatch.setenv("TPU_API_DISCOVERY_URL", emulator.discovery_url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(emulator.write_key(tmp_path / "key.json")))
    yield emulator
    emulator.close()


@pytest.fixture
def machines(emulator, tmp_path) -> Iterator[EmulatedMachines]:
    (tmp_path / "machines").mkdir()
    with machines_of(emulator.cloud, emulator.lock, tmp_path / "machines") as machines:
        yield machines


def write_config(folder: Path) -> str:
    path = folder / "sliced.yaml"
    path.write_text(CONFIG + f"run: {{dir: {folder}}}\n")
    return str(path)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    """Waits until there is a newer one than now: what a slice has not saved goes with it."""
    store = CheckpointStore(folder / "checkpoints")
    before = max(store.steps(), default=0)
    wait_until(lambda: max(store.steps(), default=0) > before, process)


def test_a_slice_that_is_taken_away_twice_leaves_no_trace_in_the_curve(emulator, machines, tmp_path, monkeypatch):
    config, folder, fast = write_config(tmp_path), tmp_path / "sliced", tmp_path / "fast"
    monkeypatch.setenv("FAST", str(fast))
    with started("train", config, *SLICE) as process:
        for times in (1, 2):
            wait_for_checkpoint(folder, process)
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
    assert all(event["step"] > 0 for event in events(folder, "resumed"))
    assert not list(folder.glob("*tpu-host*")) and not list(folder.glob(".probe*"))
    assert run(["replay", str(folder)]) == ExitCode.DONE
    # The same on this machine, undisturbed.
    assert run(["train", config, "run.name=whole"]) == ExitCode.DONE
    assert curve(folder) == curve(tmp_path / "whole")


def test_ctrl_c_saves_the_state_and_gives_the_slice_back_and_a_killed_launcher_finds_its_own(
    emulator, machines, tmp_path, monkeypatch
):
    config, folder = write_config(tmp_path), tmp_path / "sliced"
    monkeypatch.setenv("FAST", str(tmp_path / "fast"))
    with started("train", config, *SLICE) as process:
        wait_for_checkpoint(folder, process)
        process.kill()
        process.wait()
    assert emulator.cloud.alive() == [f"zone-b/{slice_name(folder)}"]
    with started("resume", str(folder)) as process:
        wait_until(lambda: events(folder, "resumed"), process)
        assert machines.booted == 1, "the slice of the first launcher serves"
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
    with started("train", write_config(tmp_path), *SLICE, "cluster.tpu.wait=3s") as process:
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
