"""One program on each of several nodes of a Ray cluster, kept running: an actor holds the node's share and the process.

For servers, which need no word with each other: each listens on its own node, and what stands before them (a load
balancer, clients that know several addresses) chooses. Ray says which nodes there are and starts what is lost again.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.parent_death import die_with_parent
from cluster.ray_agent import installed_version
from cluster.ray_cluster import RayCluster, RayClusterError
from cluster.ray_nodes import Node

_LOOK_S = 0.25
_ANSWER_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LINES_KEPT = 20


@dataclass(frozen=True)
class Copy:
    """A program that is ready.

    Attributes:
        node: Name of its node.
        address: That the others reach the node at.
        said: The line by which it said that it is ready.
    """

    node: str
    address: str
    said: str


@dataclass(frozen=True)
class _Seen:
    """What an actor knows of its process.

    Attributes:
        ready: The line that the program has printed; None: it has not.
        code: Its exit code; None: it runs.
        last: The end of what it wrote to standard error.
    """

    ready: str | None
    code: int | None
    last: str


class _Copy:
    """The actor: starts the program where it is, and ends it with itself. `version` is the launcher's."""

    def __init__(self, command: Sequence[str], folder: str, version: str) -> None:
        if (here := installed_version()) != version:
            raise RuntimeError(f"phalanx {here} is installed on a node, and {version} here: install the same")
        self._ready: str | None = None
        self._last: list[str] = []
        parent = os.getpid()
        # An actor that is killed must not leave its program behind, with the port taken.
        self._process = subprocess.Popen(
            command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: die_with_parent(parent),
        )  # fmt: skip
        for read in (self._read_output, self._read_errors):
            threading.Thread(target=read, daemon=True).start()

    def look(self) -> _Seen:
        """What is known now."""
        return _Seen(self._ready, self._process.poll(), "\n".join(self._last))

    def end(self, patience_s: float) -> None:
        """Asks the program to end, and waits."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._ready = self._ready or line.strip()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._last = [*self._last[1 - _LINES_KEPT :], line.rstrip()]
            sys.stderr.write(line)  # Ray keeps it in the node's logs


@dataclass
class _Placed:
    node: Node
    actor: Any
    asked: Any
    copy: Copy | None = None


@dataclass
class _Trouble:
    failures: int = 0
    not_before: float = 0.0


@dataclass
class RayCopies:
    """Keeps copies of a program running, one a node.

    Attributes:
        address: Of the cluster, as `RayCluster` takes it.
        command: Of the program; prints one line when it is ready. Its modules and files must be on every node.
        count: Copies that are wanted; None: one on each node that has room, whatever their number.
        cpus, gpus: That each takes of its node.
        on_change: Is told all copies that are ready, when one comes or goes.
        announce: Gets each sentence for the person.
        patience_s: For a program that is asked to end.
    """

    address: str | None
    command: Sequence[str]
    count: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    on_change: Callable[[list[Copy]], object] = lambda copies: None
    announce: Callable[[str], object] = lambda text: None
    patience_s: float = 35.0
    _placed: dict[str, _Placed] = field(default_factory=dict, init=False)
    _troubles: dict[str, _Trouble] = field(default_factory=dict, init=False)

    def run(self, stopped: threading.Event) -> None:
        """Keeps them running until it is told to stop, then ends them.

        Raises:
            RayClusterError: Ray cannot be used, no node has room, or the program fails at its first start.
        """
        cluster = RayCluster(self.address)
        try:
            self._place(cluster)
            if not self._placed:
                raise RayClusterError(
                    f"no node of the Ray cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs free: ask for less "
                    "with --replica-cpus and --replica-gpus, or add nodes"
                )
            while not stopped.wait(_LOOK_S):
                self._look()
                self._place(cluster)
        finally:
            self._end()
            cluster.close()

    def _place(self, cluster: RayCluster) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        now = time.monotonic()
        for node in cluster.nodes():
            if self.count is not None and len(self._placed) >= self.count:
                return
            if node.id in self._placed or node.leaves_at is not None or not self._has_room(node):
                continue
            if self._troubles.get(node.id, _Trouble()).not_before > now:
                continue
            actor = (
                ray.remote(_Copy)
                .options(
                    num_cpus=self.cpus,
                    num_gpus=self.gpus,
                    max_restarts=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
                )
                .remote(list(self.command), str(Path.cwd()), installed_version())
            )
            self._placed[node.id] = _Placed(node, actor, actor.look.remote())

    def _has_room(self, node: Node) -> bool:
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        # The head of a cluster may be there to lead it alone, and offers no CPU then.
        return node.total.get("CPU", 0) > 0 and all(node.available.get(k, 0.0) >= v for k, v in wanted.items() if v)

    def _look(self) -> None:
        import ray
        from ray.exceptions import RayError

        changed = False
        for key, placed in list(self._placed.items()):
            try:
                if not ray.wait([placed.asked], timeout=0)[0]:
                    continue
                seen: _Seen = ray.get(placed.asked)
                problem = None if seen.code is None else f"ended with exit code {seen.code}: {seen.last[-500:]}"
            except RayError as error:
                seen, problem = _Seen(None, None, ""), f"is lost ({str(error).strip().splitlines()[-1]})"
            if problem is None:
                placed.asked = placed.actor.look.remote()
                if placed.copy is None and seen.ready is not None:
                    placed.copy = Copy(placed.node.name, placed.node.address, seen.ready)
                    self._troubles.pop(key, None)
                    changed = True
                continue
            del self._placed[key]
            if placed.copy is None and not any(one.copy for one in self._placed.values()) and not self._troubles:
                raise RayClusterError(f"the program on {placed.node.name} {problem}")
            changed = changed or placed.copy is not None
            trouble = self._troubles.setdefault(key, _Trouble())
            pause = min(_FIRST_PAUSE_S * 2**trouble.failures, _LONGEST_PAUSE_S)
            trouble.failures, trouble.not_before = trouble.failures + 1, time.monotonic() + pause
            ray.kill(placed.actor)
            self.announce(f"{placed.node.name} {problem}")
        if changed:
            self.on_change([one.copy for one in self._placed.values() if one.copy is not None])

    def _end(self) -> None:
        import ray
        from ray.exceptions import RayError

        ending = [placed.actor.end.remote(self.patience_s) for placed in self._placed.values()]
        if ending:
            with contextlib.suppress(RayError):  # the cluster is gone, and all that ran on it
                ray.wait(ending, num_returns=len(ending), timeout=self.patience_s + _ANSWER_S)
        for placed in self._placed.values():
            ray.kill(placed.actor)
        self._placed.clear()
