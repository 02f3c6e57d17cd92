"""Workers of a work list as actors of a Ray cluster, on whichever of its nodes."""

import importlib.util
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from cluster.ray_cluster import RayCluster, RayClusterError
from cluster.shared_folder import Probe, answer_probe
from cluster.work_list import Died, Failed, Finished, Outcome

_WAIT_S = 0.5


class RayCrew:
    """An actor of one CPU for each worker.

    Args:
        function: Carries out an order and returns a result; the nodes import it.
        folder: Where workers write: one and the same on all nodes.
        address: As for `RayCluster`.

    Raises:
        RayClusterError: Ray is not installed, or the cluster cannot be used.
    """

    def __init__(self, function: Callable[[Any], Any], folder: Path, address: str | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise RayClusterError("--on ray needs Ray, which is not installed: install phalanx[ray], or leave it out")
        self._function, self._folder = function, folder
        self._cluster = RayCluster(address)
        self._probe = Probe(folder)
        self._probe.__enter__()
        self._actors: dict[str, Any] = {}
        self._at_work: dict[Any, str] = {}  # by what Ray calls the result to come
        self._hired = 0

    @property
    def cpus(self) -> int:
        """Of all nodes."""
        return max(1, int(sum(node.total.get("CPU", 0) for node in self._cluster.nodes())))

    @property
    def pids(self) -> list[int]:
        """Of the workers that have begun, wherever they are."""
        import ray

        return [ray.get(actor.pid.remote()) for actor in self._actors.values()]

    def hire(self) -> Hashable:
        """Asks Ray for an actor, which may come later."""
        import ray

        self._hired += 1
        name = f"worker {self._hired}"
        worker = ray.remote(_RayWorker).options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")
        self._actors[name] = worker.remote(self._function, self._folder, self._probe.name)
        return name

    def give(self, worker: Hashable, order: Any) -> None:
        """Sends an order."""
        assert isinstance(worker, str), "hire names workers by text"
        self._at_work[self._actors[worker].carry_out.remote(order)] = worker

    def wait(self) -> list[Outcome]:
        """Waits for an answer or a death, or for a moment."""
        import ray

        ready, _ = ray.wait(list(self._at_work), num_returns=1, timeout=_WAIT_S)
        return [self._outcome(reference) for reference in ready]

    def close(self) -> None:
        """Ends all workers and leaves Ray."""
        import ray

        for actor in self._actors.values():
            ray.kill(actor)
        self._probe.__exit__()
        self._cluster.close()

    def _outcome(self, reference: Any) -> Outcome:
        import ray
        from ray.exceptions import RayError, RayTaskError

        name = self._at_work.pop(reference)
        try:
            return Finished(name, ray.get(reference))
        except RayTaskError as error:
            return Failed(name, error.cause if isinstance(error.cause, Exception) else error)
        except RayError as error:
            del self._actors[name]
            return Died(name, f"Ray says {type(error).__name__}")


class _RayWorker:
    """What runs on a node."""

    def __init__(self, function: Callable[[Any], Any], folder: Path, probe: str) -> None:
        self._function, self._folder, self._probe = function, folder, probe

    def carry_out(self, order: Any) -> Any:
        import ray

        answer_probe(self._folder, self._probe, ray.get_runtime_context().get_node_id()[:6], "FOLDER")
        return self._function(order)

    def pid(self) -> int:
        import os

        return os.getpid()
