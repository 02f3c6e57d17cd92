"""Workers that hang, freeze or raise, through the command line: found, named, and the curve is the undisturbed one."""

import os
import signal

import pytest

from launch.cli import run
from launch.exit_code import ExitCode
from tests.launch.supervised_runs import PATIENCE_S, curve, events, pid_of_rank, said, started, wait_until, write_config

# Whoever takes over is started then: standbys would be started once more for each generation, and for nobody.
FAULTY = ["task.name=tests.launch.faulty_task:Faulty", "cluster.standbys=0"]
pytestmark = pytest.mark.processes


def steps_of(folder, generation: int) -> set[int]:
    reports = [event for event in events(folder, "progressed") if event["generation"] == generation]
    return {report["step"] for report in reports if report["phase"] == "step"}


def test_a_deadlock_and_a_frozen_process_are_named_and_replaced(undisturbed, tmp_path, monkeypatch):
    config, folder = write_config(tmp_path), tmp_path / "group"
    fault = tmp_path / "fault"
    fault.write_text("hang")
    monkeypatch.setenv("FAULT", str(fault))
    with started("train", config, *FAULTY, "cluster.hang_after=3s") as process:
        wait_until(lambda: any("generation 2 goes on" in text for text in said(folder)), process)
        # Frozen once its pace is known: before that TensorFlow's own heartbeat, in seven seconds, may be the first.
        wait_until(lambda: len(steps_of(folder, 2)) > 5, process)
        os.kill(pid_of_rank(folder, 2, rank=1), signal.SIGSTOP)
        fault.unlink()
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.DONE, output
    assert curve(folder) == curve(undisturbed)
    suspicions = [text for text in said(folder) if "write their stacks" in text]
    # On a machine so slow that ten steps outlast TensorFlow's own heartbeat, that one tells of the frozen process.
    outpaced = any("a peer is gone" in text and "generation 3" in text for text in said(folder))
    # Neither the compilation nor the evaluation, both longer than that, was taken for a hang.
    assert len(suspicions) == (1 if outpaced else 2)
    assert suspicions[0].startswith("worker 1 on localhost has made no progress for ")
    assert suspicions[-1].startswith("worker 1 on localhost has ")
    for sentence in suspicions:
        assert sentence in output
    for generation, rank in ((1, 0), (1, 1)) if outpaced else ((1, 0), (1, 1), (2, 0)):
        log = (folder / f"logs/{generation}/{rank}.log").read_text()
        assert "(most recent call first)" in log and "loop.py" in log, (generation, rank)
    assert "faulty_task.py" in (folder / "logs/1/1.log").read_text()
    if not outpaced:
        assert "no stacks: the process is stopped (SIGSTOP)" in (folder / "logs/2/1.log").read_text()
    assert run(["replay", str(folder)]) == ExitCode.DONE


def test_an_error_of_the_user_s_ends_the_run_when_it_comes_back_its_traceback_first(tmp_path, monkeypatch):
    config, folder = write_config(tmp_path), tmp_path / "group"
    fault = tmp_path / "fault"
    fault.write_text("raise")
    monkeypatch.setenv("FAULT", str(fault))
    with started("train", config, *FAULTY, "cluster.snapshot_every=null") as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.FAILED, output
    assert len(events(folder, "resumed")) + len(events(folder, "started")) == 2, "once more, in case it was the machine"
    end = output[output.rindex("Traceback (most recent call last)") :]
    assert "faulty_task.py" in end and "a label that nobody knows" in end
    last = output.strip().splitlines()[-1]
    for part in ("worker 1 on localhost raised", "a label that nobody knows", "for the second time at this step"):
        assert part in last
    assert run(["replay", str(folder)]) == ExitCode.DONE
