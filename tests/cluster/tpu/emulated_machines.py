"""The hosts of emulated slices: processes of this machine that run the real startup script while the slice is there."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.tpu.emulated_cloud import EmulatedCloud

# What a host's metadata server says.
CURL = """\
#!/bin/bash
case "$*" in
*agent-worker-number*) echo {number} ;;
*worker-network-endpoints*) echo {endpoints} ;;
*) exit 22 ;;
esac
"""
_LOOK_S = 0.05


class EmulatedMachines:
    """Boots the machines of each node that is ready, and switches them off when the node is not ready any more.

    Attributes:
        booted: how many there were.
        environment: more that they have. $MACHINE in it is the number of the machine.
    """

    def __init__(self, cloud: EmulatedCloud, lock: threading.Lock, folder: Path) -> None:
        self._cloud, self._lock, self._folder = cloud, lock, folder
        self.booted = 0
        self.environment: dict[str, str] = {}
        self._machines: dict[tuple[str, int], subprocess.Popen] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pid(self, name: str, number: int) -> int:
        """Of the startup script of a machine.

        Args:
            name: Of its node.
            number: In the node.
        """
        return next(m.pid for (path, host), m in self._machines.items() if path.endswith(f"/{name}") and host == number)

    def folder(self, number: int) -> Path:
        """What a machine wrote is there.

        Args:
            number: Of the machine, in the order in which they booted, from 1.
        """
        return self._folder / f"machine-{number}"

    def close(self) -> None:
        """Switches all machines off."""
        self._over.set()
        self._thread.join()
        for machine in list(self._machines):
            self._switch_off(machine)
        for number in range(1, self.booted + 1):  # pytest shows it where a test has failed
            print(f"machine {number}:\n{(self.folder(number) / 'startup.log').read_text(errors='replace')[-4000:]}")

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            with self._lock:
                nodes = {node["name"]: node for node in self._cloud.nodes() if node["state"] == "READY"}
            for machine in [machine for machine in self._machines if machine[0] not in nodes]:
                self._switch_off(machine)
            for name, node in nodes.items():
                for number in range(len(node["networkEndpoints"])):
                    if (name, number) not in self._machines:
                        self._boot(name, number, node)

    def _boot(self, name: str, number: int, node: dict[str, Any]) -> None:
        self.booted += 1
        own = self.folder(self.booted)
        own.mkdir()
        endpoints = ",".join(f"unknown:unknown:{end['ipAddress']}:{end['port']}" for end in node["networkEndpoints"])
        (own / "curl").write_text(CURL.format(number=number, endpoints=endpoints))
        (own / "curl").chmod(0o755)
        # Where a real host has a log of its own, which nobody may write here.
        (own / "startup.sh").write_text(node["metadata"]["startup-script"].replace("/var/log/", f"{own}/"))
        given = {name: value.replace("$MACHINE", str(self.booted)) for name, value in self.environment.items()}
        environment = {**os.environ, **given, "TPU_WORKER_ID": str(number)}
        environment["PATH"] = f"{own}:{environment['PATH']}"
        for secret in ("GOOGLE_APPLICATION_CREDENTIALS", "TPU_API_DISCOVERY_URL"):
            environment.pop(secret, None)  # of the launcher's machine
        with (own / "startup.log").open("wb") as log:
            self._machines[name, number] = subprocess.Popen(
                ["bash", str(own / "startup.sh")], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _switch_off(self, which: tuple[str, int]) -> None:
        """As when the power goes: nothing on the machine is told, and nothing of it stays."""
        machine = self._machines.pop(which)
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
