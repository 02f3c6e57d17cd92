"""Hosts that are processes of their own: lost, warned, given back, and back again."""

import os
import signal
from pathlib import Path

import pytest

from cluster.emulated_hosts import EmulatedHosts
from cluster.local import LocalHost
from cluster.supervisor.events import HostDraining, HostJoined, HostLost, Progressed, WorkerReady
from cluster.worker_environment import Share
from cluster.worker_output import OutputLines
from tests.cluster.agent_workers import OBEY, SAY_PID, WAIT, Recorder, assignment, is_running, pid_in, program

pytestmark = pytest.mark.processes

WORKS = """
print("at work", flush=True)
link.progressed(given.generation, 7, "step")
stop.wait()
"""


class Stage:
    """Hosts `a`, with two slots, and `b`, and what they report."""

    def __init__(self, folder: Path, *script: str, return_s: float | None = None) -> None:
        self.recorder = Recorder()
        self.pids: dict[str, list[int]] = {"a": [], "b": []}
        self.gone: list[str] = []
        self.output: list[OutputLines] = []
        self.hosts = EmulatedHosts(
            [LocalHost("a", (Share(), Share(threads=1, devices=("0",)))), LocalHost("b")],
            program(*script, FOLDER=str(folder)),
            folder / "logs",
            notice_s=12.5,
            return_s=return_s,
            on_output=self.output.append,
            on_started=lambda host, pid: self.pids[host].append(pid),
            on_gone=self.gone.append,
        )

    def __enter__(self) -> "Stage":
        self.hosts.open(self.recorder)
        return self

    def __exit__(self, *exception: object) -> None:
        self.hosts.close()
        assert not [pid for pids in self.pids.values() for pid in pids if is_running(pid)]


def test_orders_go_to_the_host_of_a_worker_and_its_events_come_back(tmp_path: Path):
    with Stage(tmp_path, WAIT, WORKS) as stage:
        recorder, hosts = stage.recorder, stage.hosts
        assert [(event.host, event.slots) for event in recorder.of(HostJoined)] == [("a", 2), ("b", 1)]
        hosts.start("w1", "b")
        assert recorder.first(WorkerReady, "w1").host == "b"
        hosts.form("w1", assignment("w1"))
        assert recorder.first(Progressed, "w1").step == 7
        recorder.wait(lambda: any("at work" in output.lines for output in stage.output))
        hosts.dump_stacks("w1")
        # A process that ends while its stacks are written may be ended by that.
        recorder.wait(lambda: any("most recent call first" in line for output in stage.output for line in output.lines))
        hosts.stop("w1", "enough")
        assert recorder.exit_of("w1").code == 0
        for order in (hosts.kill, hosts.stop):
            order("w2", "nobody")


def test_a_host_that_is_killed_is_reported_when_nothing_runs_there_any_more_and_comes_back(tmp_path: Path):
    with Stage(tmp_path, SAY_PID, OBEY, return_s=0.05) as stage:
        stage.hosts.start("w1", "a")
        stage.recorder.first(WorkerReady, "w1")
        worker = pid_in(tmp_path / "pid")
        os.kill(stage.pids["a"][0], signal.SIGKILL)
        lost = stage.recorder.first(HostLost)
        assert not is_running(worker), "whoever reports a host as lost answers for its workers"
        assert (lost.host, lost.reason) == ("a", "its process was ended by SIGKILL")
        assert stage.gone == ["a"]
        stage.recorder.wait(lambda: len(stage.recorder.of(HostJoined)) == 3)
        stage.hosts.start("w2", "a")
        stage.recorder.first(WorkerReady, "w2")
        assert len(stage.pids["a"]) == 2


def test_sigterm_is_a_notice_and_a_host_that_is_given_back_says_so(tmp_path: Path):
    with Stage(tmp_path, OBEY) as stage:
        stage.hosts.start("w1", "b")
        stage.recorder.first(WorkerReady, "w1")
        os.kill(stage.pids["b"][0], signal.SIGTERM)
        draining = stage.recorder.first(HostDraining)
        assert (draining.host, draining.notice_s) == ("b", 12.5)
        stage.hosts.release("b")
        assert stage.recorder.exit_of("w1").signal == signal.SIGKILL
        assert stage.recorder.first(HostLost).reason == "it was given back"
        assert stage.pids["a"] and is_running(stage.pids["a"][0])
