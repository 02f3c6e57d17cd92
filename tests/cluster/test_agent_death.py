"""Nothing survives an agent that is killed: not its workers, not what they have started, however they are stuck."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.worker_environment import AGENT_PID, HOST_ADDRESS, LINK_DESCRIPTOR, WORKER_NAME
from tests.cluster.agent_workers import LIMIT_S, PREAMBLE, ROOT, is_running, read, wait_until

pytestmark = pytest.mark.processes

LAUNCHER = """
import sys, threading
from pathlib import Path
from cluster.agent import Agent
from cluster.worker_environment import python_program
folder = Path(sys.argv[1])
agent = Agent("a", python_program("-c", sys.argv[2]), folder / "logs", lambda event: None)
for name in sys.argv[3:]:
    agent.start(name)
threading.Event().wait()
"""
# A child in the worker's process group: it outlives a worker that only the kernel ends.
WITH_CHILD = (
    PREAMBLE
    + """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("pids", os.getpid(), child.pid, flush=True)
"""
)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator:
    started = []

    def launch(script: str, *workers: str) -> tuple[subprocess.Popen, list[int]]:
        """A process with an agent, and the pids of its workers and of their children."""
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, tmp_path, script, *workers], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        started.append(process)

        def said() -> list[str]:
            logs = [read(tmp_path / f"logs/standby/{worker}.log") for worker in workers]
            return [line for log in logs for line in log.split("\n")[:-1] if line.startswith("pids ")]

        wait_until(lambda: len(said()) == len(workers))
        return process, [int(pid) for line in said() for pid in line.split()[1:]]

    yield launch
    for process in started:
        process.kill()
        process.wait()


def guardians_of(process: subprocess.Popen) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "--ppid", str(process.pid), "-o", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "guardian_process" in line]


STUCK = {
    "waiting": "link.wait_for_assignment()",
    "computing": "while True: pass",
    "holding the interpreter": "import collections, itertools; collections.deque(itertools.repeat(0), maxlen=0)",
    "deaf to signals": "signal.signal(signal.SIGTERM, signal.SIG_IGN); link.wait_for_assignment()",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("state", STUCK)
def test_a_killed_agent_takes_workers_and_their_children_along(launcher, state: str):
    process, pids = launcher(WITH_CHILD + STUCK[state], "w1", "w2")
    assert len(pids) == 4 and all(map(is_running, pids))
    process.kill()
    wait_until(lambda: not any(map(is_running, pids)))


def test_without_its_guardian_the_worker_ends_all_the_same(launcher):
    process, pids = launcher(WITH_CHILD + STUCK["holding the interpreter"], "w1")
    (guardian,) = guardians_of(process)
    os.kill(guardian, signal.SIGKILL)
    try:
        process.kill()
        wait_until(lambda: not is_running(pids[0]))
    finally:
        os.kill(pids[1], signal.SIGKILL)


def test_a_guardian_ends_with_its_agent(launcher):
    process, _ = launcher(WITH_CHILD + STUCK["waiting"], "w1")
    (guardian,) = guardians_of(process)
    process.kill()
    wait_until(lambda: not is_running(guardian))


def test_a_worker_whose_agent_died_before_it_ran_ends_at_once():
    # The agent that it is told of is not its parent: what it looks like when that died before the worker could ask
    # the kernel for anything.
    ours, theirs = os.pipe()
    told = {
        LINK_DESCRIPTOR: str(theirs),
        AGENT_PID: "1",
        WORKER_NAME: "w1",
        HOST_ADDRESS: "::1",
        "PYTHONPATH": str(ROOT),
    }
    try:
        worker = subprocess.run(
            [sys.executable, "-c", PREAMBLE + "time.sleep(600)"], env={**os.environ, **told}, timeout=LIMIT_S
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert worker.returncode == 86


def test_a_program_that_no_agent_started_says_so():
    worker = subprocess.run(
        [sys.executable, "-c", PREAMBLE],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=LIMIT_S,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "this program is started by a Phalanx agent: run `phalanx train`" in worker.stderr
