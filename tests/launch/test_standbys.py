"""Standbys that rehearse the training while they wait: what goes wrong in it has no consequence, and they step in."""

import os
import signal

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import PATIENCE_S, curve, events, started, wait_until, write_config

pytestmark = pytest.mark.processes


def test_standbys_step_in_whether_their_rehearsal_went_well_or_not(tmp_path):
    config, folder, fault = write_config(tmp_path), tmp_path / "group", tmp_path / "fault"
    arguments = ["task.name=tests.launch.faulty_task:Faulty", "cluster.standbys=2", "cluster.rehearse=true"]
    arguments += ["train.steps=100000000", "train.log_every=100", "evaluate.every=null"]

    def standbys() -> list[str]:
        """Those whose rehearsal is over."""
        return [event["worker"] for event in events(folder, "progressed") if event["phase"] == "standby"]

    def log_of(worker: str) -> str:
        return (folder / "logs" / "standby" / f"{worker}.log").read_text()

    def kill_chief() -> None:
        before = len(events(folder, "resumed"))
        os.kill(events(folder, "resumed" if before else "started")[-1]["pid"], signal.SIGKILL)
        wait_until(lambda: len(events(folder, "resumed")) > before, process)

    with started("train", config, *arguments, FAULT=str(fault)) as process:
        wait_until(lambda: events(folder, "started"), process)
        fault.write_text("build")
        # They rehearse one after the other: the second finds the task mended.
        wait_until(standbys, process)
        fault.unlink()
        wait_until(lambda: len(standbys()) == 2, process)
        first, second = standbys()
        # What a worker prints takes another way than what it reports, and may arrive later.
        wait_until(lambda: "the rehearsal failed: RuntimeError: the task is broken for now" in log_of(first), process)
        wait_until(lambda: "rehearsed in" in log_of(second), process)
        kill_chief()
        last = curve(folder)[-1]["step"]
        wait_until(lambda: curve(folder)[-1]["step"] > last, process)
        assert run(["stop", str(folder)]) == ExitCode.DONE
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.STOPPED, output
    formed = [(c["assignment"]["generation"], c["worker"]) for c in events(folder, "command") if c["command"] == "form"]
    assert {worker for generation, worker in formed if generation == 2} == {first, second}
    assert run(["replay", str(folder)]) == ExitCode.DONE
