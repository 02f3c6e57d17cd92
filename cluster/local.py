"""Hosts on this machine, without any cluster: each has an agent and a name of its own."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.agent import Agent
from cluster.assignment import Assignment
from cluster.supervisor.events import Event, HostJoined, HostLost
from cluster.worker_environment import Share, WorkerProgram
from cluster.worker_output import Sink


@dataclass(frozen=True)
class LocalHost:
    """One host.

    Attributes:
        name: the host's name.
        shares: what each of the workers that it can run at once may use; as many as it has slots.
    """

    name: str
    shares: tuple[Share, ...] = (Share(),)


class LocalHosts:
    """Runs an agent for each host in this process. More than one host on a machine is an emulation of a cluster.

    Args:
        hosts: that join when the hosts are opened.
        program: what workers run.
        logs: the folder of the workers' log files.
        on_output: gets the lines that workers print, on an agent's thread, and must not block.
        address: at which the workers reach each other.
    """

    def __init__(
        self,
        hosts: Sequence[LocalHost],
        program: WorkerProgram,
        logs: Path,
        *,
        on_output: Sink | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self._hosts, self._program, self._logs = tuple(hosts), program, logs
        self._on_output, self._address = on_output, address
        self._agents: dict[str, Agent] = {}
        self._host_of: dict[str, str] = {}
        self._on_event: Callable[[Event], object] = lambda event: None

    def open(self, on_event: Callable[[Event], object]) -> None:
        """Lets all hosts join. Events come from the threads of the agents."""
        self._on_event = on_event
        for host in self._hosts:
            self.join(host)

    def join(self, host: LocalHost) -> None:
        """Lets one more host join, or one that was lost come back."""
        self._agents[host.name] = Agent(
            host.name,
            self._program,
            self._logs,
            self._on_event,
            shares=host.shares,
            address=self._address,
            on_output=self._on_output,
        )
        self._on_event(HostJoined(time.monotonic(), host.name, len(host.shares)))

    def lose(self, host: str, reason: str) -> None:
        """Ends a host with its workers and says that it is lost."""
        self.release(host)
        self._on_event(HostLost(time.monotonic(), host, reason))

    def start(self, worker: str, host: str) -> None:
        """Starts a worker on a host."""
        if host in self._agents:
            self._host_of[worker] = host
            self._agents[host].start(worker)

    def form(self, worker: str, assignment: Assignment) -> None:
        """Hands a worker its part in a generation."""
        if agent := self._agent_of(worker):
            agent.form(worker, assignment)

    def stop(self, worker: str, reason: str) -> None:
        """Asks a worker to save its state and end."""
        if agent := self._agent_of(worker):
            agent.stop(worker, reason)

    def kill(self, worker: str, reason: str) -> None:
        """Ends a worker at once."""
        if agent := self._agent_of(worker):
            agent.kill(worker, reason)

    def dump_stacks(self, worker: str) -> None:
        """Has a worker write its stacks to its log."""
        if agent := self._agent_of(worker):
            agent.dump_stacks(worker)

    def profile(self, worker: str, steps: int) -> None:
        """Has a worker profile its next steps."""
        if agent := self._agent_of(worker):
            agent.profile(worker, steps)

    def release(self, host: str) -> None:
        """Ends a host's workers and its agent."""
        if agent := self._agents.pop(host, None):
            agent.close()

    def close(self) -> None:
        """Ends all workers and waits until they are gone."""
        for host in list(self._agents):
            self.release(host)

    def _agent_of(self, worker: str) -> Agent | None:
        return self._agents.get(self._host_of.get(worker, ""))
