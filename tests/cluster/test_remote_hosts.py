"""Agents in processes of their own that a launcher reaches over the network, without any cluster."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cluster.remote_hosts import RemoteHosts
from cluster.supervisor.events import HostDraining, HostJoined, HostLost, Progressed, WorkerReady
from tests.cluster.agent_workers import (
    LIMIT_S,
    OBEY,
    PREAMBLE,
    ROOT,
    Recorder,
    assignment,
    is_running,
    pid_in,
    wait_until,
)

pytestmark = pytest.mark.processes

AGENT = """
import os, signal, sys
from pathlib import Path
from cluster.remote_agent import RemoteAgent
from cluster.worker_environment import Share, python_program
address, host, folder, lease_s, script = sys.argv[1:]
folder = Path(folder)
(folder / "memory").mkdir()
program = python_program("-c", script, environment={"FOLDER": str(folder)})
agent = RemoteAgent(
    address, os.environ["SECRET"], host, program, folder / "logs", shares=[Share()], address="127.0.0.1",
    folder=folder / "memory", lease_s=float(lease_s),
)
signal.signal(signal.SIGTERM, lambda *_: agent.drain(7.0))
print("up", flush=True)
agent.wait()
print("down", flush=True)
"""
SAYS_PID = "print(os.getpid(), file=open(os.environ['FOLDER'] + '/pid', 'w'), flush=True)\n"


@pytest.fixture
def hosts(recorder: Recorder) -> Iterator[Callable[..., RemoteHosts]]:
    opened: list[RemoteHosts] = []

    def open_hosts(bind: str = "127.0.0.1", **settings: object) -> RemoteHosts:
        opened.append(RemoteHosts(bind, **settings))
        opened[-1].report_to(recorder)
        return opened[-1]

    yield open_hosts
    for each in opened:
        each.close()


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    started: list[subprocess.Popen] = []

    def start(hosts: RemoteHosts, script: str = OBEY, lease_s: float = 30.0, secret: str = "") -> subprocess.Popen:
        command = [sys.executable, "-c", AGENT, hosts.address, "node1", tmp_path, str(lease_s), PREAMBLE + script]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SECRET": secret or hosts.secret}
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_orders_and_events_cross_the_network(hosts, join, recorder: Recorder, tmp_path: Path):
    lines: list[str] = []
    here = hosts(on_output=lambda output: lines.extend(output.lines))
    script = OBEY.replace("stop.wait()", "print('hello'); link.progressed(1, 5, 'step'); stop.wait(); os._exit(7)")
    join(here, script)
    assert recorder.first(HostJoined).slots == 1
    here.start("w1", "node1")
    assert recorder.first(WorkerReady).host == "node1"
    here.form("w1", assignment("w1"))
    assert recorder.first(Progressed).step == 5
    here.order("w1", "stop", reason="enough")
    assert recorder.exit_of("w1").code == 7
    assert "hello" in lines
    here.order("w1", "nonsense")
    here.order("w1", "kill")  # without a reason
    here.release("node1")
    assert recorder.first(HostLost).reason == "it was given back"
    assert not (tmp_path / "memory").exists()


def test_a_killed_agent_is_lost_at_once_with_its_workers_and_its_memory(hosts, join, recorder, tmp_path: Path):
    here = hosts()
    process = join(here, SAYS_PID + OBEY)
    recorder.first(HostJoined)
    here.start("w1", "node1")
    worker = pid_in(tmp_path / "pid")
    process.kill()
    assert recorder.first(HostLost).host == "node1"
    wait_until(lambda: not is_running(worker) and not (tmp_path / "memory").exists())


def test_a_launcher_that_is_gone_takes_the_workers_along_and_not_the_memory(hosts, join, recorder, tmp_path: Path):
    here = hosts()
    process = join(here, SAYS_PID + OBEY)
    recorder.first(HostJoined)
    here.start("w1", "node1")
    worker = pid_in(tmp_path / "pid")
    here._agents["node1"].channel.cut()
    assert process.wait(LIMIT_S) == 0
    assert not is_running(worker)
    assert (tmp_path / "memory").exists(), "the next launcher has nothing to go on from"


def test_an_agent_that_hears_nothing_of_its_launcher_ends_its_workers_when_its_lease_is_over(join, recorder, tmp_path):
    """The launcher is a process that is stopped, as on a machine that is cut off."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        address, secret = launcher.stdout.readline().split()
        process = join(type("There", (), {"address": address, "secret": secret}), SAYS_PID + OBEY, lease_s=1.0)
        worker = pid_in(tmp_path / "pid")
        os.kill(launcher.pid, signal.SIGSTOP)
        assert process.wait(LIMIT_S) == 0
        assert not is_running(worker)
    finally:
        launcher.kill()
        launcher.communicate()


LAUNCHER = """
import threading
from cluster.remote_hosts import RemoteHosts
from cluster.supervisor.events import HostJoined
hosts = RemoteHosts("127.0.0.1")
hosts.report_to(lambda event: isinstance(event, HostJoined) and hosts.start("w1", "node1"))
print(hosts.address, hosts.secret, flush=True)
threading.Event().wait()
"""


def test_a_silent_agent_is_ended_by_force(hosts, join, recorder: Recorder):
    processes: list[subprocess.Popen] = []
    here = hosts(silent_s=1.5, end_agent=lambda host: processes[0].kill() or True)
    processes.append(join(here))
    recorder.first(HostJoined)
    os.kill(processes[0].pid, signal.SIGSTOP)
    assert "silent" in recorder.first(HostLost).reason


def test_a_silent_agent_that_nobody_can_end_is_given_up_only_later(hosts, join, recorder: Recorder):
    asked = threading.Event()
    here = hosts(silent_s=1.2, given_up_s=2.5, end_agent=lambda host: asked.set() or False)
    process = join(here)
    recorder.first(HostJoined)
    os.kill(process.pid, signal.SIGSTOP)
    assert asked.wait(LIMIT_S)
    assert not recorder.of(HostLost), "its workers may still act"
    recorder.first(HostLost)


def test_a_signal_to_an_agent_is_its_hosts_notice(hosts, join, recorder: Recorder):
    process = join(hosts())
    recorder.first(HostJoined)
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert recorder.first(HostDraining).notice_s == 7.0


def test_a_process_without_the_secret_does_not_join(hosts, join, recorder: Recorder):
    process = join(hosts(), secret="0" * 64)
    assert process.wait(LIMIT_S) != 0
    assert b"ProofFailed" in process.stderr.read()
    assert not recorder.events


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1"])
def test_it_listens_where_it_is_told_and_nowhere_else(hosts, bind: str):
    if bind == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    before = _listening()
    here = hosts(bind)
    (place,) = _listening() - before
    assert place[0] == bind and here.address.endswith(f":{place[1]}")
    here.close()
    assert _listening() == before


def _listening() -> set[tuple]:
    return {tuple(one.laddr) for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN}


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
