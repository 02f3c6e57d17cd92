"""The hosts of emulated slices: processes of this machine that run the real startup script while the slice is there."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.cluster.tpu.emulated_cloud import EmulatedCloud

# The metadata server of a host whose number in its slice is 0.
CURL = """\
#!/bin/bash
case "$*" in *agent-worker-number*) echo 0 ;; *) exit 22 ;; esac
"""
_LOOK_S = 0.05


class EmulatedMachines:
    """Boots a machine for each node that is ready, and switches it off when the node is not ready any more.

    Attributes:
        booted: how many there were.
    """

    def __init__(self, cloud: EmulatedCloud, lock: threading.Lock, folder: Path) -> None:
        self._cloud, self._lock, self._folder = cloud, lock, folder
        self.booted = 0
        self._machines: dict[str, subprocess.Popen] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        tools = folder / "tools"
        tools.mkdir()
        (tools / "curl").write_text(CURL)
        (tools / "curl").chmod(0o755)
        self._thread.start()

    def close(self) -> None:
        """Switches all machines off."""
        self._over.set()
        self._thread.join()
        for name in list(self._machines):
            self._switch_off(name)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            with self._lock:
                nodes = {node["name"]: node for node in self._cloud.nodes() if node["state"] == "READY"}
            for name in [name for name in self._machines if name not in nodes]:
                self._switch_off(name)
            for name, node in nodes.items():
                if name not in self._machines:
                    self._boot(name, node["metadata"]["startup-script"])

    def _boot(self, name: str, script: str) -> None:
        self.booted += 1
        path = self._folder / f"startup-{self.booted}.sh"
        # Where a real host has a log of its own, which nobody may write here.
        path.write_text(script.replace("/var/log/", f"{self._folder}/"))
        environment = {**os.environ, "PATH": f"{self._folder / 'tools'}:{os.environ['PATH']}"}
        for secret in ("GOOGLE_APPLICATION_CREDENTIALS", "TPU_API_DISCOVERY_URL"):
            environment.pop(secret, None)  # of the launcher's machine
        with (self._folder / f"startup-{self.booted}.log").open("wb") as log:
            self._machines[name] = subprocess.Popen(
                ["bash", str(path)], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _switch_off(self, name: str) -> None:
        """As when the power goes: nothing on the machine is told, and nothing of it stays."""
        machine = self._machines.pop(name)
        try:
            everything = [*psutil.Process(machine.pid).children(recursive=True), psutil.Process(machine.pid)]
        except psutil.NoSuchProcess:
            everything = []
        for process in everything:  # first they stop, so that none starts another meanwhile
            _signal(process, signal.SIGSTOP)
        for process in everything:
            _signal(process, signal.SIGKILL)
        machine.wait()
        psutil.wait_procs(everything, 10)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


@contextmanager
def machines_of(cloud: EmulatedCloud, lock: threading.Lock, folder: Path) -> Iterator[EmulatedMachines]:
    """Machines for a while.

    Args:
        cloud: whose nodes they are.
        lock: that guards it.
        folder: for what they write.
    """
    machines = EmulatedMachines(cloud, lock, folder)
    try:
        yield machines
    finally:
        machines.close()
