"""An actor of a Ray cluster that keeps a run: it outlives the command that made it, and Ray starts it again."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.ray_agent import installed_version
from cluster.ray_cluster import RayCluster, RayClusterError
from cluster.shared_folder import Probe, answer_probe

_NAMESPACE = "phalanx"
_BEGIN_S = 60.0
_OF_HEAD = "node:__internal_head__"

Keep = Callable[[Mapping[str, str]], object]


class RayKeeper:
    """The actor. It ends when there is nothing more to keep.

    Args:
        keep: keeps the run until it ends, with these variables for the environment of its launchers.
    """

    def __init__(self, keep: Keep) -> None:
        import ray

        self._keep = keep
        context = ray.get_runtime_context()
        self._itself = context.current_actor
        self._environment = {"RAY_ADDRESS": context.gcs_address}
        if context.was_current_actor_reconstructed:
            self._start()

    def begin(self, run: str, probe: str, installed: str) -> str:
        """Makes sure that this node can serve the run, and begins to keep it.

        Returns:
            The name of this machine.

        Raises:
            ValueError: it cannot. One sentence for the user.
        """
        if (here := installed_version()) != installed:
            raise ValueError(f"it has phalanx {here} and not {installed}: install the same version on all nodes")
        answer_probe(Path(run), probe, f"{socket.gethostname()}-{os.getpid()}")
        self._start()
        return socket.gethostname()

    def _start(self) -> None:
        # This thread starts the launchers, and the kernel ends them with it.
        threading.Thread(target=self._serve, name="keeper", daemon=True).start()

    def _serve(self) -> None:
        import ray

        try:
            self._keep(self._environment)
        finally:
            ray.kill(self._itself, no_restart=True)


def start_on_ray(address: str, name: str, run: Path, keep: Keep) -> str:
    """Has an actor keep a run, on the head's node if it can be there: the cluster ends with that one anyway.

    Args:
        address: of the Ray cluster.
        name: of the actor; one of a name at a time.
        run: the run folder.
        keep: see `RayKeeper`; it is called on the node, where its module must be installed.

    Returns:
        The name of the machine that it is on.

    Raises:
        RayClusterError: the cluster cannot be used, or the node cannot serve the run.
    """
    cluster = RayCluster(address)
    try:
        with Probe(run) as probe:
            return _begin(cluster, name, run, keep, probe.name)
    finally:
        cluster.close()


def _begin(cluster: RayCluster, name: str, run: Path, keep: Keep, probe: str) -> str:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = cluster.nodes()
    head = next((node for node in nodes if _OF_HEAD in node.total), None)
    home = head or nodes[0]
    # By the head's own resource: a mere wish for a node is forgotten by whoever has not heard of that node yet.
    place: dict[str, Any] = (
        {"resources": {_OF_HEAD: 0.001}}
        if head
        else {"scheduling_strategy": NodeAffinitySchedulingStrategy(home.id, soft=True)}
    )
    until = time.monotonic() + _BEGIN_S
    while True:
        try:
            actor: Any = (
                ray.remote(RayKeeper)
                .options(
                    name=name,
                    namespace=_NAMESPACE,
                    lifetime="detached",
                    max_restarts=-1,
                    num_cpus=0,
                    **place,
                )
                .remote(keep)
            )
            break
        except ValueError:  # the last one of this name is about to end: nobody has the run's lock any more
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    try:
        return ray.get(actor.begin.remote(str(run), probe, installed_version()), timeout=_BEGIN_S)
    except Exception as error:
        with contextlib.suppress(Exception):
            ray.kill(actor, no_restart=True)
        cause = getattr(error, "cause", None) or error
        raise RayClusterError(f"{home.name} cannot keep this run: {cause}") from error
