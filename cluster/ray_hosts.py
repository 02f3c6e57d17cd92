"""The nodes of a Ray cluster as hosts: an actor on each that the run takes, whose process is its agent."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.assignment import Assignment, SnapshotPlace
from cluster.config import RayConfig
from cluster.process import ProcessIdentity, is_alive
from cluster.ray_agent import AgentPlan, HostStorage, RayAgent, end_process, installed_version
from cluster.ray_cluster import RayCluster, RayClusterError, seconds_until
from cluster.ray_nodes import Node, choose, names_of, resources, shortage, suffices
from cluster.ray_slices import RaySlice, free_slices, slice_shortage, whole_slices
from cluster.remote_agent import GIVEN_UP_S
from cluster.remote_hosts import RemoteHosts, WorkersOfAgents
from cluster.shared_folder import Probe
from cluster.supervisor.events import Event, HostDraining, HostJoined, SnapshotTaken
from cluster.supervisor.settings import BackOff
from cluster.worker_environment import WorkerProgram
from cluster.worker_output import Sink

_log = logging.getLogger(__name__)
_LOOK_S = 0.5
# The hosts that are there at the start are reported together, so that they share the workers.
_OPEN_S = 60.0
_LAG_S = 1.5
_FETCH_S = 100.0
_BACK_OFF = BackOff(first_s=1.0, longest_s=60.0)


class NoResources(Exception):
    """This machine has not got what the run needs. The message is one sentence for the user."""


@dataclass
class _Placed:
    """An agent on a node, from the request for it on.

    Attributes:
        slice: that the node is the first one of.
        reservation: of all nodes of the slice: Ray's placement group.
        is_here: whether the launcher's kernel runs the agent and shows it: being in one container's network, or having
            one host name, does not mean that.
    """

    node: Node
    host: str
    slots: int
    actor: Any
    begun: Any
    since: float
    slice: RaySlice | None = None
    reservation: Any = None
    process: ProcessIdentity | None = None
    is_here: bool = False
    is_draining: bool = False

    @property
    def nodes(self) -> set[str]:
        """All that it needs, by Ray's ids."""
        return {node.id for node in self.slice.nodes} if self.slice else {self.node.id}


@dataclass
class _Trouble:
    """What stands against taking a node."""

    failures: int = 0
    not_before: float = 0.0
    problem: str | None = None


class RayHosts(WorkersOfAgents):
    """Takes nodes of a Ray cluster for a run, and others for those that it loses.

    Args:
        config: which nodes, and how much of each.
        workers: the fewest and the most workers of a generation.
        run, logs: the run folder, and that of the workers' log files; on storage that all nodes share.
        program, storage: give what workers run on a host, and its memory for snapshots. They are called on the nodes,
            where their modules must be installed.
        notice_s: seconds that a node has after SIGTERM to its agent, or where Ray says no time.
        may_restore: whether the run may go on from a snapshot of this generation and step that an earlier launcher has
            left in a node's memory.
        on_output: gets the lines that workers print, and must not block.
        announce: gets each sentence for the person.
    """

    def __init__(
        self,
        config: RayConfig,
        workers: tuple[int, int],
        run: Path,
        logs: Path,
        *,
        program: Callable[[str], WorkerProgram],
        storage: Callable[[str], HostStorage],
        notice_s: float = 30.0,
        may_restore: Callable[[int, int], bool] = lambda generation, step: False,
        on_output: Sink = lambda output: None,
        announce: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._config, (self._min_workers, self._max_workers) = config, workers
        self._run, self._logs = run.absolute(), logs.absolute()
        self._program, self._storage, self._notice_s = program, storage, notice_s
        self._may_restore, self._on_output, self._announce = may_restore, on_output, announce
        self._on_event: Callable[[Event], object] = lambda event: None
        self._lock = threading.RLock()
        self._placed: dict[str, _Placed] = {}  # by Ray's node id
        self._troubles: dict[str, _Trouble] = {}
        self._held: dict[str, tuple[int, int]] = {}  # generation and step of each host's own snapshot
        self._fetches: dict[tuple[int, str, str], Any] = {}
        self._first_joins: list[HostJoined | SnapshotTaken] | None = []
        self._known: set[str] = set()
        self._returned: set[str] = set()  # of those, the ones whose agent is another than the first
        self._refused: set[tuple[str, int, int]] = set()  # host, generation and step
        self._said = ""
        self._look_now = threading.Event()
        self._closing = threading.Event()
        self._fetching = ThreadPoolExecutor(8, "snapshots")
        self._cluster: RayCluster | None = None
        self._watch_thread: threading.Thread | None = None
        self._probe = Probe(self._run)

    def open(self, on_event: Callable[[Event], object]) -> None:
        """Connects to Ray, or starts it, and takes nodes. Those that are there join before this returns.

        Raises:
            RayClusterError: Ray cannot be used, or a node cannot serve the run.
            NoResources: the cluster was started here, and this machine has not got what the run needs.
        """
        self._on_event = on_event
        self._cluster = RayCluster(self._config.address)
        self._check_placement()
        self._probe.__enter__()
        self._agents = RemoteHosts(
            self._cluster.node_address,
            on_output=self._on_output,
            on_left=self._tell_of_left,
            on_gone=self._gone,
            end_agent=self._end_agent,
        )
        self._agents.report_to(self._pass_on)
        began = time.monotonic()
        self._look()
        while self._is_starting(time.monotonic() - began):
            self._look_now.wait(0.05)
            self._look_now.clear()
            self._look()
        problem = next((trouble.problem for trouble in self._troubles.values() if trouble.problem), None)
        if problem is not None:
            raise RayClusterError(problem)
        with self._lock:
            joins, self._first_joins = self._first_joins or [], None
            for event in joins:
                self._on_event(event)
        self._watch_thread = threading.Thread(target=self._watch, name="ray-nodes", daemon=True)
        self._watch_thread.start()

    def form(self, worker: str, assignment: Assignment) -> None:
        """Hands a worker its part in a generation, after the snapshot that it goes on from, if that is elsewhere."""
        agents, place = self._agents, assignment.restore
        host = agents.host_of(worker) if agents else None
        if agents is None or host is None:
            return
        if place is None or place.host == host:
            agents.form(worker, assignment)
        elif place.step == self._held.get(host, (0, -1))[1] and self._held.get(host) == self._held.get(place.host):
            # All hosts of a generation keep the same state, and its own is nearest.
            agents.form(worker, replace(assignment, restore=SnapshotPlace(place.step, host)))
        else:
            key = (assignment.generation, place.host, host)
            if key not in self._fetches:
                self._fetches[key] = self._fetching.submit(self._fetch, place, host)
            self._fetches[key].add_done_callback(lambda _: agents.form(worker, assignment))

    def release(self, host: str) -> None:
        """Gives a node back: its workers end, its agent too, and it is reported as lost."""
        if self._agents is not None:
            self._agents.release(host)

    def close(self) -> None:
        """Gives all nodes back, waits until the workers are gone, and leaves Ray."""
        self._closing.set()
        self._look_now.set()
        if self._watch_thread is not None:
            self._watch_thread.join()
        if self._agents is not None:
            self._agents.close()
            self._fetching.shutdown(wait=False, cancel_futures=True)
            with self._lock:
                for placed in self._placed.values():  # those that have not joined
                    _give_back(placed)
            self._probe.__exit__()
        if self._cluster is not None:
            self._cluster.close()

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, HostDraining):
            with self._lock:
                self._note_notice(event)
        if isinstance(event, SnapshotTaken):
            self._held[event.host] = (event.generation, event.step)
        if isinstance(event, HostJoined):
            if event.host in self._known:
                self._returned.add(event.host)
            self._known.add(event.host)
            self._look_now.set()
        if isinstance(event, HostJoined | SnapshotTaken):
            with self._lock:
                if self._first_joins is not None:
                    self._first_joins.append(event)
                    return
        self._on_event(event)

    def _tell_of_left(self, snapshot: SnapshotTaken) -> None:
        """An agent has found this in its host's memory, of an earlier launcher or of an agent that died alone.

        Where an earlier launcher's is refused, it is for good. What was taken under the present supervisor, that one
        judges itself: it may have given that past up.
        """
        one = (snapshot.host, snapshot.generation, snapshot.step)
        if snapshot.host not in self._returned and not self._may_restore(*one[1:]):
            self._refused.add(one)
        if one not in self._refused:
            self._pass_on(snapshot)

    def _gone(self, host: str) -> None:
        """An agent has ended: its node may serve again, if it lives, and other nodes may have to."""
        self._held.pop(host, None)
        with self._lock:
            node = next((id for id, placed in self._placed.items() if placed.host == host), None)
            if node is not None:
                self._drop(node)
            if self._first_joins is not None:
                self._first_joins = [event for event in self._first_joins if event.host != host]
        self._look_now.set()

    # Taking nodes.

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._look()
            except Exception as error:  # a head that does not answer: the agents that there are do not need it
                _log.warning("Ray does not say which nodes there are: %r", error)
            self._look_now.wait(_LOOK_S)
            self._look_now.clear()

    def _look(self) -> None:
        """Looks at the nodes, and takes those that the run needs."""
        assert self._cluster is not None
        nodes = self._cluster.nodes()
        with self._lock:
            self._check_starts()
            self._tell_of_notices(nodes)
            self._give_up_torn_slices(nodes)
            if self._closing.is_set():
                return
            now, names, slices = time.monotonic(), names_of(nodes), {}
            offered = nodes
            if self._config.slice:
                slices = {one.head.id: one for one in free_slices(self._whole_slices(nodes), self._config)}
                offered, names = [one.head for one in slices.values()], {id: one.name for id, one in slices.items()}
            free = [node for node in offered if node.id not in self._placed and self._may_take(node.id, now)]
            held = [placed.slots for placed in self._placed.values() if not placed.is_draining]
            for node, slots in choose(self._config, free, held, self._max_workers):
                self._place(node, names[node.id], slots, slices.get(node.id))
            self._say_what_is_missing(nodes)

    def _whole_slices(self, nodes: list[Node]) -> list[RaySlice]:
        return whole_slices(nodes, self._config.slice or "")

    def _may_take(self, node: str, now: float) -> bool:
        trouble = self._troubles.get(node)
        return trouble is None or (trouble.problem is None and trouble.not_before <= now)

    def _place(self, node: Node, host: str, slots: int, slice: RaySlice | None) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

        assert self._agents is not None
        plan = AgentPlan(
            host=host,
            slots=slots,
            threads=max(1, round(self._config.cpus_per_worker)),
            launcher=self._agents.address,
            secret=self._agents.secret,
            run=str(self._run),
            logs=str(self._logs),
            probe=self._probe.name,
            notice_s=self._notice_s,
            program=self._program,
            storage=self._storage,
            tpu=slice.name if slice and len(slice.nodes) > 1 else None,
        )
        reservation, there = None, NodeAffinitySchedulingStrategy(node.id, soft=False)
        if slice:  # in one act: two runs that each hold half of a slice would wait for ever
            reservation = ray.util.placement_group(
                slice.bundles(self._config), "STRICT_SPREAD", bundle_label_selector=slice.selectors()
            )
            there = PlacementGroupSchedulingStrategy(reservation, placement_group_bundle_index=0)
        amounts = resources(self._config, slots)
        actor = (
            ray.remote(RayAgent)
            .options(
                num_cpus=amounts.get("CPU", 0),
                num_gpus=amounts.get("GPU", 0),
                max_restarts=0,
                scheduling_strategy=there,
            )
            .remote(plan, installed_version())
        )
        self._placed[node.id] = _Placed(
            node, host, slots, actor, actor.begin.remote(), time.monotonic(), slice, reservation
        )

    def _is_starting(self, waited_s: float) -> bool:
        """Whether more hosts are about to join; what Ray says about its nodes is a moment old."""
        with self._lock:
            starting = any(placed.process is None for placed in self._placed.values())
            slots = [placed.slots for placed in self._placed.values()]
        return waited_s < (_OPEN_S if starting else 0.0 if suffices(self._config, slots, self._max_workers) else _LAG_S)

    def _check_starts(self) -> None:
        import ray
        from ray.exceptions import RayError

        for node, placed in list(self._placed.items()):
            if placed.process is not None:
                continue
            ready, _ = ray.wait([placed.begun], timeout=0)
            try:
                begun: Any = ray.get(placed.begun) if ready else None
            except RayError as error:
                _log.warning("the agent on %s did not start: %s", placed.host, error)
                self._drop(node)
                continue
            if begun is not None and begun.problem is not None:
                self._troubles.setdefault(node, _Trouble()).problem = begun.problem
                if self._first_joins is None:
                    self._announce(begun.problem)
                self._drop(node)
            elif begun is not None:
                placed.process = begun.process
                placed.is_here = begun.process.is_local and is_alive(begun.process)
            elif time.monotonic() - placed.since > _OPEN_S:
                self._drop(node)  # somebody else was faster: another node may have room

    def _drop(self, node: str) -> None:
        placed = self._placed.pop(node)
        _give_back(placed)
        trouble, now = self._troubles.setdefault(node, _Trouble()), time.monotonic()
        # One that has served for long had a good start.
        trouble.failures = 1 if now - placed.since > _OPEN_S else trouble.failures + 1
        trouble.not_before = max(trouble.not_before, now + _BACK_OFF.delay_s(trouble.failures))

    def _note_notice(self, event: HostDraining) -> None:
        """A host leaves: another node may take its place, and the same one is not taken again before it is gone."""
        for node, placed in self._placed.items():
            if placed.host == event.host:
                placed.is_draining = True
                self._troubles.setdefault(node, _Trouble()).not_before = time.monotonic() + event.notice_s
                self._look_now.set()

    def _tell_of_notices(self, nodes: list[Node]) -> None:
        holder = {node: placed for placed in self._placed.values() for node in placed.nodes}
        for node in nodes:
            placed = holder.get(node.id)
            if node.leaves_at is None or placed is None or placed.process is None or placed.is_draining:
                continue
            notice_s = seconds_until(node.leaves_at) if node.leaves_at else self._notice_s
            self._pass_on(HostDraining(time.monotonic(), placed.host, notice_s))

    def _give_up_torn_slices(self, nodes: list[Node]) -> None:
        """A slice that has lost a node computes nothing any more, and its first node may not know."""
        assert self._agents is not None
        alive = {node.id for node in nodes}
        for placed in self._placed.values():
            if placed.slice and placed.node.id in alive and not placed.nodes <= alive:
                self._agents.release(placed.host, "a node of its slice is gone")

    def _check_placement(self) -> None:
        """A cluster of our own gets no more nodes: what does not fit now never will."""
        assert self._cluster is not None
        if self._cluster.is_own and (missing := self._shortage(self._cluster.nodes())):
            raise NoResources(missing)

    def _say_what_is_missing(self, nodes: list[Node]) -> None:
        missing = self._shortage(nodes) or ""
        if missing != self._said:
            self._said = missing
            if missing:
                self._announce(missing)

    def _shortage(self, nodes: list[Node]) -> str | None:
        if self._config.slice:
            return slice_shortage(self._config, self._whole_slices(nodes), nodes)
        return shortage(self._config, nodes, self._min_workers)

    # Ending agents, and moving what hosts hold in memory.

    def _end_agent(self, host: str) -> bool:
        """Has an agent's process killed by its node, which also knows when it is gone."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with self._lock:
            placed = next((one for one in self._placed.values() if one.host == host), None)
        if placed is None or placed.process is None:
            return False
        if placed.is_here:  # needs no raylet, which may be what was killed
            return end_process(placed.process)
        there = NodeAffinitySchedulingStrategy(placed.node.id, soft=False)
        try:
            task = ray.remote(end_process).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
            return ray.get(task.remote(placed.process), timeout=GIVEN_UP_S / 2)
        except Exception as error:  # the node is gone, or nobody can reach it
            _log.warning("nobody on %s can end its agent: %r", host, error)
            return False

    def _fetch(self, place: SnapshotPlace, host: str) -> None:
        """Copies a snapshot from one host's memory to another's. Without it the worker says what it misses."""
        import ray

        with self._lock:
            actors = {placed.host: placed.actor for placed in self._placed.values()}
        if place.host not in actors or host not in actors:
            return
        try:
            content = actors[place.host].read_snapshot.remote(place.host)
            if not ray.get(actors[host].keep_snapshot.remote(place.host, content), timeout=_FETCH_S):
                _log.warning("the snapshot of step %d is not in the memory of %s", place.step, place.host)
        except Exception as error:
            _log.warning("the snapshot in the memory of %s did not reach %s: %r", place.host, host, error)


def _give_back(placed: _Placed) -> None:
    import ray

    try:
        ray.kill(placed.actor, no_restart=True)
        if placed.reservation is not None:
            ray.util.remove_placement_group(placed.reservation)
    except Exception as error:  # it is gone, or Ray is
        _log.info("an actor could not be ended: %r", error)
