"""A program on each node of a real Ray cluster: it is started again, elsewhere too, and nothing of it stays."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from cluster.ray_cluster import RayClusterError
from cluster.ray_copies import Copy, RayCopies
from tests.cluster.ray_nodes import ray_nodes

pytestmark = pytest.mark.processes
PROGRAM = [sys.executable, "-c", "import os, time; print('ready', os.getpid(), flush=True); time.sleep(1000)"]
PATIENCE_S = 120.0


def wait_until(reached: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def pid_of(copy: Copy) -> int:
    return int(copy.said.split()[1])


def test_programs_and_nodes_that_are_killed_are_replaced_and_nothing_stays():
    ready: list[list[Copy]] = [[]]
    said: list[str] = []
    stopped, failed = threading.Event(), list[BaseException]()

    def keep(copies: RayCopies) -> None:
        try:
            copies.run(stopped)
        except BaseException as error:
            failed.append(error)

    with ray_nodes(2) as nodes:
        copies = RayCopies(nodes.address, PROGRAM, 2, on_change=ready.append, announce=said.append, patience_s=5)
        thread = threading.Thread(target=keep, args=(copies,))
        thread.start()
        try:
            wait_until(lambda: failed or len(ready[-1]) == 2)
            assert not failed
            first = {pid_of(copy) for copy in ready[-1]}
            assert len(first) == 2 and all(psutil.pid_exists(pid) for pid in first)
            struck = min(first)
            os.kill(struck, signal.SIGKILL)
            wait_until(lambda: len(ready[-1]) == 2 and struck not in map(pid_of, ready[-1]))
            assert any("exit code -9" in sentence for sentence in said)
            nodes.kill(nodes.alive()[0])
            wait_until(lambda: len(ready[-1]) == 1)
            nodes.add()
            wait_until(lambda: len(ready[-1]) == 2)
            last = [psutil.Process(pid_of(copy)) for copy in ready[-1]]
        finally:
            stopped.set()
            thread.join(PATIENCE_S)
        assert not thread.is_alive() and not failed
        assert not psutil.wait_procs(last, 10)[1]

        with pytest.raises(RayClusterError, match="no node of the Ray cluster has 64 CPUs"):
            RayCopies(nodes.address, PROGRAM, cpus=64).run(threading.Event())
        bad = [sys.executable, "-c", "raise SystemExit('no such model')"]
        with pytest.raises(RayClusterError, match="no such model"):
            RayCopies(nodes.address, bad, 1).run(threading.Event())
