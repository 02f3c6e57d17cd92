"""Service workers as processes of this machine, under an agent of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cluster.agent import Agent
from cluster.data_service.fleet import Ended, Serves
from cluster.supervisor.events import Event, WorkerExited, WorkerReady
from cluster.worker_environment import Share, WorkerProgram
from cluster.worker_process import signal_name


class LocalDataWorkers:
    """Starts processes that end with this one, however that ends.

    Args:
        program: what a service worker runs; it reports its address as any worker does.
        logs: the folder of their log files.
        threads: of each of a worker's pools.
    """

    def __init__(self, program: WorkerProgram, logs: Path, threads: int) -> None:
        self._program, self._logs, self._threads = program, logs, threads
        self._tell: Callable[[Serves | Ended], object] = lambda told: None
        self._agent: Agent | None = None

    def open(self, tell: Callable[[Serves | Ended], object]) -> None:
        """Starts the agent."""
        self._tell = tell
        self._agent = Agent("data service", self._program, self._logs, self._hear, shares=[Share(self._threads)])

    def start(self, worker: str) -> None:
        """Starts a process."""
        assert self._agent is not None, "opened before"
        self._agent.start(worker)

    def end(self, worker: str) -> None:
        """Ends a process."""
        assert self._agent is not None, "opened before"
        self._agent.kill(worker, "the data service needs fewer workers")

    def close(self) -> None:
        """Ends all processes and the agent."""
        if self._agent is not None:
            self._agent.close()

    def _hear(self, event: Event) -> None:
        if isinstance(event, WorkerReady):
            self._tell(Serves(event.worker, event.address))
        elif isinstance(event, WorkerExited):
            self._tell(Ended(event.worker, _how(event)))


def _how(event: WorkerExited) -> str:
    if event.error is not None:
        return event.error.message
    return signal_name(event.signal) if event.signal is not None else f"exit code {event.code}"
