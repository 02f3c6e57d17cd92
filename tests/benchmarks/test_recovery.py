"""The arithmetic of the recovery and launch benchmarks, and what they watch for; no training is started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import launch, recovery
from benchmarks.attempts import AttemptFailed, _pace, _strike_peer, started, wait_for
from benchmarks.fault_models import MODELS, run_settings
from benchmarks.machine import target_line
from launch.run_config import RunConfig


def figures(seconds: float, lost: int = 3, step_ms: float = 5.0) -> dict:
    return {"recovery_s": seconds, "steps_lost": lost, "step_ms": step_ms, "phases": {"detection": seconds / 10}}


KILLED = {
    recovery.PHALANX: [figures(1.0), figures(9.0, lost=21), figures(1.2)],
    recovery.ELASTIC: [figures(0.1, lost=0), figures(0.3, lost=0), figures(0.1, lost=1)],
    recovery.RAY: [figures(20.0), figures(90.0), figures(10.0)],
    recovery.LOOP: [{"step_ms": 6.0}, {"step_ms": 4.0}, {"step_ms": 5.0}],
}
JOINED = {
    recovery.ELASTIC: [
        {"step_ms": 2.0, "join_ms": 1.0},
        {"step_ms": 2.0, "join_ms": 9.0},
        {"step_ms": 2.0, "join_ms": 1.2},
    ]
}


def test_targets_compare_within_each_round():
    assert recovery.targets_of({"mlp": {recovery.KILL: KILLED, recovery.JOIN: JOINED}}) == [
        "target recovery_vs_ray_mlp 0.1 <=0.1 ok",
        "target recovery_s_mlp 1.2 <3 ok",
        "target steps_lost_mlp 21 <=20 short",
        "target step_vs_loop_mlp 1 >=1.0 ok",
        "target recovery_s_elastic_mlp 0.1 <0.2 ok",
        "target steps_lost_elastic_mlp 1 <=0 short",
        "target joining_in_steps_mlp 0.6 <1 ok",
    ]


def test_the_table_holds_the_medians_and_the_phases():
    text = recovery.table_of("mlp", recovery.KILL, KILLED)
    assert text.splitlines()[0] == "mlp, SIGKILL of rank 0, medians of 3"
    assert text.splitlines()[2].split()[:3] == ["phalanx", "1.20", "-"]
    assert "phalanx: detection 0.12 (s)" in text


def test_launch_targets_are_ratios_too():
    attempts = {
        launch.PHALANX: [{"launch_s": 4.0}, {"launch_s": 5.0}],
        launch.COLD: [{"launch_s": 20.0}, {"launch_s": 10.0}],
    }
    assert launch.targets_of({"mlp": attempts}) == ["target launch_vs_ray_cold_mlp 0.35 <=0.5 ok"]
    assert launch.table_of({"mlp": attempts}).splitlines()[1].split() == ["phalanx", "4.50"]


def test_a_goal_may_be_reached_exactly():
    assert target_line("x", 0.5, "<=0.5").endswith("ok")
    assert target_line("x", 0.5, "<0.5").endswith("short")


@pytest.mark.parametrize("model", MODELS)
def test_the_settings_are_a_config_that_phalanx_takes(model: str, tmp_path: Path):
    config = RunConfig.model_validate(run_settings(model, str(tmp_path), "local"))
    assert config.cluster.workers == 2 and config.train.steps_per_loop == 1


def test_the_pace_leaves_the_beginning_out():
    slow_start = [(0, 0.0), (1, 10.0), *((step, 10.0 + 0.01 * step) for step in range(2, 12))]
    assert _pace(slow_start) == pytest.approx(10.0)
    assert _pace([]) is None


# Stands in for a worker that trains: ten steps, and when it was killed another goes on from step 8.
PEER = """
import sys, time
sys.path.insert(0, {root!r})
from benchmarks.mirrored_loop import Notes
note = Notes({notes!r}, "worker" + sys.argv[1])
first = int(sys.argv[2])
note("started"); note("restored", step=first)
for step in range(first + 1, 10_000):
    note("step", step=step)
    time.sleep(0.001)
"""


def test_a_peer_has_recovered_when_all_ranks_did_a_new_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.attempts.STEPS_BEFORE", {"mlp": 10})
    notes, log = tmp_path / "notes", tmp_path / "peer.log"
    script = PEER.format(root=os.getcwd(), notes=str(notes))
    driver = f"""
import subprocess, sys
script = {script!r}
start = lambda *a: subprocess.Popen([sys.executable, "-c", script, *a])
first, other = start("0", "0"), start("1", "0")
first.wait(); other.kill(); other.wait()
again = [start("0", "4"), start("1", "4")]
for one in again: one.wait()
"""
    with started([sys.executable, "-c", driver], log) as process:
        found = _strike_peer("mlp", tmp_path, process, log, time.time(), signal.SIGKILL)
    lines = [json.loads(line) for path in notes.glob("*.jsonl") for line in path.read_text().splitlines()]
    restored_at = max(line["time"] for line in lines if line["event"] == "restored")
    best = max(line["step"] for line in lines if line["event"] == "step" and line["time"] < restored_at)
    assert found["steps_lost"] == best - 4 > 0
    assert found["recovery_s"] > found["first_step_s"] > 0
    assert sum(found["phases"].values()) == pytest.approx(found["first_step_s"], abs=0.1)


def test_a_contender_that_dies_is_quoted_and_nothing_is_left(tmp_path: Path):
    log = tmp_path / "broken.log"
    with (
        pytest.raises(AttemptFailed, match="no memory left"),
        started([sys.executable, "-c", "raise SystemExit('no memory left')"], log) as process,
    ):
        wait_for(lambda: False, process, log)
    endless = "import subprocess, sys, time; subprocess.Popen(['sleep', '1000']); time.sleep(1000)"
    with started([sys.executable, "-c", endless], log) as process:
        found = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True)
    assert process.poll() is not None
    assert not any(Path(f"/proc/{pid}").exists() for pid in found.stdout.split())
