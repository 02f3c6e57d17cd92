"""What runs on a node of a Ray cluster: an actor that holds the node's resources and is its agent."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from cluster.parent_death import die_with_parent
from cluster.process import NoSuchProcess, ProcessIdentity, send_signal, this_process, wait_until_gone
from cluster.remote_agent import RemoteAgent
from cluster.shared_folder import answer_probe
from cluster.worker_environment import Share, WorkerProgram, on_slice

_END_S = 10.0


class HostStorage(Protocol):
    """A run's part of a host's memory."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        ...

    def create(self, keep: Collection[str] = ()) -> None:
        """Makes it, empty but for the snapshots of these hosts."""
        ...

    def snapshot(self, host: str) -> Path:
        """The file of a host's snapshot in it."""
        ...

    def held(self, host: str) -> list[tuple[int, int]]:
        """Generation and step of each whole snapshot in a host's file, oldest first."""
        ...


@dataclass(frozen=True)
class AgentPlan:
    """What an agent is told. It travels to its node.

    Attributes:
        host: what its host is called.
        slots: members that it runs at once.
        threads: of each of their pools.
        launcher: the address that the launcher listens at.
        secret: of the run.
        run: the run folder.
        logs: the folder of the workers' log files.
        probe: the name of a file in the run folder that shows whether this is the launcher's.
        notice_s: seconds that a host has after SIGTERM to its agent.
        program: gives what workers run on the host; called on the node.
        storage: gives the host's memory; called on the node.
        tpu: name of the slice of several nodes that this one is the first of; None: it is alone.
    """

    host: str
    slots: int
    threads: int
    launcher: str
    secret: str
    run: str
    logs: str
    probe: str
    notice_s: float
    program: Callable[[str], WorkerProgram]
    storage: Callable[[str], HostStorage]
    tpu: str | None = None


@dataclass(frozen=True)
class Begun:
    """How an agent has begun.

    Attributes:
        process: it.
        problem: why it cannot serve the run, one sentence for the user; None: it has joined.
    """

    process: ProcessIdentity
    problem: str | None = None


class RayAgent:
    """The agent's actor. Orders and events take the agent's own connection; Ray carries snapshots."""

    def __init__(self, plan: AgentPlan, installed: str) -> None:
        self._plan, self._installed = plan, installed
        self._storage = plan.storage(plan.host)

    def begin(self) -> Begun:
        """Makes sure that this node can serve the run, and joins it."""
        import ray

        die_with_raylet()
        plan = self._plan
        try:
            if (here := installed_version()) != self._installed:
                raise ValueError(
                    f"it has phalanx {here} and not {self._installed}: install the same version on all nodes"
                )
            answer_probe(Path(plan.run), plan.probe, plan.host)
            self._storage.create(keep=[plan.host])
            agent = RemoteAgent(
                plan.launcher,
                plan.secret,
                plan.host,
                on_slice(plan.program(plan.host), plan.tpu),
                Path(plan.logs),
                shares=_shares(plan, [str(gpu) for gpu in ray.get_gpu_ids()]),
                address=ray.util.get_node_ip_address(),
                folder=self._storage.folder,
                outlives=True,  # the agent may die alone, and another come to the same host
                held=self._storage.held(plan.host),
            )
        except (ValueError, OSError) as error:
            return Begun(this_process(), f"{plan.host} cannot serve this run: {error}")
        _on_sigterm(lambda: agent.drain(plan.notice_s))
        threading.Thread(target=_end_with, args=(agent,), daemon=True).start()
        return Begun(this_process())

    def read_snapshot(self, host: str) -> Any:
        """The bytes of a snapshot in this host's memory; None where there is none."""
        try:
            return np.fromfile(self._storage.snapshot(host), np.uint8)
        except FileNotFoundError:
            return None

    def keep_snapshot(self, host: str, content: Any) -> bool:
        """Puts a snapshot of another host into this host's memory.

        Returns:
            Whether there was one, and room for it.
        """
        path = self._storage.snapshot(host)
        new = path.with_name(f"{path.name}.fetched")
        if content is None:
            return False
        try:
            content.tofile(new)
            os.replace(new, path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            return False
        return True


def end_process(process: ProcessIdentity) -> bool:
    """Ends a process of the node that this runs on, and waits until it is gone.

    Returns:
        Whether it is gone for sure.
    """
    with contextlib.suppress(NoSuchProcess):
        if process.host != socket.gethostname():
            return False
        send_signal(process, signal.SIGKILL)
    return wait_until_gone(process, _END_S)


def installed_version() -> str:
    """The version of Phalanx on this machine."""
    try:
        return version("phalanx")
    except PackageNotFoundError:
        return "of a source folder"


def _shares(plan: AgentPlan, gpus: Sequence[str]) -> list[Share]:
    each = len(gpus) // plan.slots
    return [Share(plan.threads, tuple(gpus[slot * each : (slot + 1) * each])) for slot in range(plan.slots)]


def die_with_raylet() -> None:
    """Ends this process with its node's raylet.

    Ray lets actors live on without it, and believes them dead: then nobody would account for this node's workers.
    """
    parent = os.getppid()
    # In a container of its own an actor may have another parent, which need not live as long as the actor.
    with contextlib.suppress(psutil.Error):
        if psutil.Process(parent).name().startswith("raylet"):
            die_with_parent(parent)


def _on_sigterm(act: Callable[[], object]) -> None:
    """Acts at once when this process gets SIGTERM. Its main thread is inside Ray, where Python runs no handlers."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        with writer:
            while data := reader.recv(1):
                if data[0] == signal.SIGTERM:
                    act()

    threading.Thread(target=listen, name="sigterm", daemon=True).start()


def _end_with(agent: RemoteAgent) -> None:
    agent.wait()
    # A launcher that lives has Ray end this actor, which then takes it for no failure.
    time.sleep(_END_S)
    os._exit(0)
