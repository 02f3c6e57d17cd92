"""Runs without a terminal, through the command line: real processes, really killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster.run_lock import KEEPING, TRAINING, read_holder
from launch.cli import run
from launch.detached.record import read_record
from launch.exit_code import ExitCode
from launch.host_memory import HostMemory
from tests.launch.supervised_runs import PATIENCE_S, curve, events, last_step, wait_for, write_config

pytestmark = pytest.mark.processes


@contextmanager
def detached(config: str, folder: Path, *arguments: str) -> Iterator[str]:
    """What the command says. All that goes on is ended afterwards, the keeper first."""
    command = [sys.executable, "-c", "from launch.cli import main; main()", "train", config, *arguments, "--detach"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == ExitCode.DONE, done.stderr
        yield done.stdout
    finally:
        for lock in (KEEPING, TRAINING, KEEPING):
            if (holder := read_holder(folder, lock)) is not None:
                os.kill(holder.process.pid, signal.SIGKILL)


def pid(folder: Path, lock: str) -> int | None:
    holder = read_holder(folder, lock)
    return None if holder is None else holder.process.pid


def test_a_killed_launcher_is_started_again_and_the_curve_is_the_undisturbed_one(undisturbed, tmp_path, capsys):
    config, folder = write_config(tmp_path), tmp_path / "group"
    with detached(config, folder) as output:
        launcher = pid(folder, TRAINING)
        assert f"goes on in process {launcher}" in output and f"phalanx logs -f {folder}" in output
        keeper = psutil.Process(pid(folder, KEEPING))
        assert keeper.terminal() is None and os.getsid(keeper.pid) == keeper.pid
        wait_for(lambda: last_step(folder) >= 100, folder)
        os.kill(launcher, signal.SIGKILL)
        reached = last_step(folder)
        assert run(["logs", "-f", "-n", "1", str(folder)]) == ExitCode.DONE
    assert not read_holder(folder) and not psutil.pid_exists(launcher)
    assert curve(folder) == curve(undisturbed)
    [resumed] = events(folder, "resumed")
    # Two snapshots, eight steps apart, and the one that was being written.
    assert resumed["step"] >= reached - 24 and resumed["step"] % 8 == 0 and not HostMemory(folder).folder.exists()
    followed = capsys.readouterr().out
    assert "the launcher was killed (SIGKILL) at step" in followed and "done after step 600" in followed
    assert "it is started again (1 of 5 without progress)" in followed
    assert f"from step {resumed['step']} in the memory of localhost" in followed
    assert read_record(folder).exit_code == ExitCode.DONE and read_record(folder).restarts == 1
    assert run(["replay", str(folder)]) == ExitCode.DONE


def test_a_killed_keeper_is_replaced_and_the_run_is_stopped_from_any_host(tmp_path, monkeypatch, capsys):
    config, folder = write_config(tmp_path), tmp_path / "group"
    with detached(config, folder, "train.steps=100000000", "cluster.workers=1", "strategy.name=one_device"):
        launcher = pid(folder, TRAINING)
        for _ in range(2):
            keeper = pid(folder, KEEPING)
            os.kill(keeper, signal.SIGKILL)
            wait_for(lambda old=keeper: pid(folder, KEEPING) not in (None, old), folder)
        assert pid(folder, TRAINING) == launcher
        # Nobody else is let in.
        assert run(["train", config, "cluster.workers=1", "strategy.name=one_device"]) == ExitCode.WRONG_REQUEST
        assert run(["resume", str(folder), "--detach"]) == ExitCode.WRONG_REQUEST
        # The new keeper has found the launcher, and knows how to go on without it.
        os.kill(launcher, signal.SIGKILL)
        wait_for(lambda: pid(folder, TRAINING) not in (None, launcher), folder)
        wait_for(lambda: events(folder, "resumed") or len(events(folder, "started")) == 2, folder)
        step = last_step(folder)
        wait_for(lambda: last_step(folder) > step, folder)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
            assert run(["stop", str(folder)]) == ExitCode.DONE
        assert read_holder(folder) is None and read_holder(folder, KEEPING) is None
    assert read_record(folder).exit_code == ExitCode.STOPPED
    capsys.readouterr()
    assert run(["status", str(folder)]) == ExitCode.DONE
    assert "stopped" in capsys.readouterr().out
    assert "stopped by phalanx stop on elsewhere" in (folder / "logs" / "launcher.log").read_text()
    assert run(["stop", str(folder)]) == ExitCode.WRONG_REQUEST
    assert not (folder / "stop-request").exists()


def test_what_is_wrong_is_said_before_the_command_returns(tmp_path, capsys):
    config = write_config(tmp_path)
    assert run(["train", config, "train.stpes=3", "--detach"]) == ExitCode.WRONG_REQUEST
    assert "did you mean train.steps" in capsys.readouterr().err
    # This shows only when the data is open.
    alone = ["cluster.workers=1", "strategy.name=one_device"]
    assert run(["train", config, *alone, "optimizer.schedule.warmup=50ep", "--detach"]) == ExitCode.WRONG_REQUEST
    assert "optimizer.schedule.warmup=50ep is 800 steps" in capsys.readouterr().err
    assert not (tmp_path / "group").exists()
