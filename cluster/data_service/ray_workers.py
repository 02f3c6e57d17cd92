"""Service workers as actors of a Ray cluster, wherever it has room for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from cluster.data_service.fleet import Ended, Serves
from cluster.ray_agent import die_with_raylet, installed_version

_log = logging.getLogger(__name__)
_LOOK_S = 0.25


class Server(Protocol):
    """What serves blocks in an actor."""

    address: str


OpenServer = Callable[[str, str], Server]
"""Makes a server, from the worker's name and the address of its node; called there."""


class RayDataWorker:
    """The actor."""

    def __init__(self, worker: str, open_server: OpenServer, installed: str) -> None:
        self._worker, self._open_server, self._installed = worker, open_server, installed

    def begin(self) -> str:
        """Imports everything and listens; returns the address.

        Raises:
            ValueError: this node has another version of Phalanx.
        """
        import ray

        die_with_raylet()
        if (here := installed_version()) != self._installed:
            raise ValueError(f"its node has phalanx {here} and not {self._installed}: install the same on all nodes")
        self._server = self._open_server(self._worker, ray.util.get_node_ip_address())
        return self._server.address

    def last(self) -> None:
        """Does not return: a call that fails says that the actor is gone."""
        threading.Event().wait()


class RayDataWorkers:
    """Starts actors that end with the launcher's connection to Ray.

    Args:
        open_server: what an actor runs.
        num_cpus: that Ray keeps free for each.
    """

    def __init__(self, open_server: OpenServer, num_cpus: float) -> None:
        self._open_server, self._num_cpus = open_server, num_cpus
        self._tell: Callable[[Serves | Ended], object] = lambda told: None
        self._lock = threading.Lock()
        self._actors: dict[str, Any] = {}
        self._calls: dict[Any, tuple[str, str]] = {}  # the worker and the method of each call under way
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, tell: Callable[[Serves | Ended], object]) -> None:
        """Begins to watch actors. The process is connected to Ray."""
        self._tell = tell
        self._thread = threading.Thread(target=self._watch, name="ray-data-workers", daemon=True)
        self._thread.start()

    def start(self, worker: str) -> None:
        """Asks Ray for an actor, which begins when there is room for it."""
        import ray

        options = {"num_cpus": self._num_cpus, "max_restarts": 0, "max_concurrency": 2, "scheduling_strategy": "SPREAD"}
        actor = ray.remote(RayDataWorker).options(**options).remote(worker, self._open_server, installed_version())
        with self._lock:
            self._actors[worker] = actor
            self._calls[actor.begin.remote()] = (worker, "begin")

    def end(self, worker: str) -> None:
        """Ends an actor."""
        import ray

        if (actor := self._actors.get(worker)) is not None:
            ray.kill(actor, no_restart=True)

    def close(self) -> None:
        """Ends all actors."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        for worker in list(self._actors):
            try:
                self.end(worker)
            except Exception as error:  # it is gone, or Ray is
                _log.info("data service worker %s could not be ended: %r", worker, error)

    def _watch(self) -> None:
        import ray

        while not self._closing.wait(_LOOK_S):
            with self._lock:
                calls = dict(self._calls)
            if not calls:
                continue
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
            for call in ready:
                with self._lock:
                    del self._calls[call]
                self._hear(*calls[call], call)

    def _hear(self, worker: str, method: str, call: Any) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            address: Any = ray.get(call)
        except RayError as error:
            _log.warning("data service worker %s has ended: %s", worker, error)
            self._actors.pop(worker, None)
            self._tell(Ended(worker, _reason(error)))
            return
        assert method == "begin", "the other call does not return"
        with self._lock:
            self._calls[self._actors[worker].last.remote()] = (worker, "last")
        self._tell(Serves(worker, address))


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    text = str(cause) if cause else type(error).__name__
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]
