"""The real supervisor over tiny workers on a real Ray cluster of several nodes, whose parts are killed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import UnionType

import psutil
import pytest

from cluster.config import RayConfig
from cluster.process import identity_of
from cluster.ray_agent import AgentPlan, RayAgent
from cluster.ray_cluster import RayClusterError
from cluster.ray_hosts import RayHosts
from cluster.runtime import Runtime
from cluster.shared_folder import Probe
from cluster.supervisor.commands import Command, Finish, Form
from cluster.supervisor.events import Event, HostDraining, HostJoined, HostLost, Progressed, SnapshotTaken, WorkerExited
from cluster.supervisor.settings import HangLimits, Patience, Settings, Sizes
from cluster.supervisor.supervisor import Supervisor
from tests.cluster.agent_workers import read
from tests.cluster.ray_nodes import CPUS_PER_NODE, RayNodes, ray_nodes
from tests.cluster.ray_workers import storage_in, trains

pytestmark = pytest.mark.processes
PATIENCE_S = 300.0
# Before a silence of ten seconds is one, or Ray itself knows: a few milliseconds on an idle machine.
AT_ONCE_S = 9.0
NODES = 2


@pytest.fixture(scope="module")
def shared_nodes() -> Iterator[RayNodes]:
    with ray_nodes(NODES) as nodes:
        yield nodes


@pytest.fixture
def nodes(shared_nodes: RayNodes) -> RayNodes:
    shared_nodes.fill_up(NODES)
    return shared_nodes


class Run:
    """A run under way, in a thread."""

    def __init__(
        self, nodes: RayNodes, folder: Path, steps: int, workers: int = 2, resources_s: float | None = None
    ) -> None:
        self.folder, self.journal, self.said = folder, [], []
        self.error: BaseException | None = None
        self.settings = Settings(
            sizes=Sizes(min=workers, max=workers, gather_s=0.5),
            standbys=workers,
            patience=Patience(resources_s=resources_s, spare_s=1.0),
            # Workers wait where the test has them wait, which on a loaded machine takes longer than a step may.
            hangs=HangLimits(floor_s=PATIENCE_S),
        )
        self.hosts = RayHosts(
            RayConfig(address=nodes.address, cpus_per_worker=1.0),
            (workers, workers),
            folder,
            folder / "logs",
            program=partial(trains, str(folder), steps),
            storage=storage_in(folder),
            announce=self.said.append,
        )
        self.runtime = Runtime(Supervisor(self.settings), self.hosts, self.journal.append, self.said.append)
        self.finish: Finish | None = None
        self._thread = threading.Thread(target=self._run)

    def begin(self) -> "Run":
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self.finish = self.runtime.run()
        except RayClusterError as error:
            self.error = error

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._thread.is_alive() and time.monotonic() < deadline, (self.said, self.journal[-30:])
            time.sleep(0.002)

    def end(self) -> Finish | None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), (self.said, self.journal[-30:])
        return self.finish

    def of(self, kind: type | UnionType, **values: object) -> list:
        return [
            item
            for item in list(self.journal)
            if isinstance(item, kind) and all(getattr(item, name) == value for name, value in values.items())
        ]

    def step(self, generation: int) -> int:
        return max((event.step for event in self.of(Progressed, generation=generation)), default=-1)

    def pid(self, generation: int, rank: int) -> int:
        path = self.folder / f"pid-{generation}-{rank}"
        self.wait(lambda: read(path).endswith("\n"))
        return int(path.read_text())

    def agent(self, generation: int, rank: int) -> psutil.Process:
        parent = psutil.Process(self.pid(generation, rank)).parent()
        assert parent is not None
        return parent

    def has_unread(self, pid: int) -> bool:
        """Whether bytes of the launcher's wait in the receive buffer of a process (Linux)."""
        launchers = {one.laddr for one in psutil.Process().net_connections("tcp4") if one.status == psutil.CONN_LISTEN}
        own = [one.laddr.port for one in psutil.Process(pid).net_connections("tcp4") if one.raddr in launchers]
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        waiting = [int(line[1].split(":")[1], 16) for line in lines if not line[4].endswith(":00000000")]
        return any(port in waiting for port in own)

    def host(self, generation: int, rank: int) -> str:
        (form,) = [form for form in self.of(Form) if form.assignment.generation == generation][rank : rank + 1]
        return form.assignment.itself.host


@pytest.fixture
def run(nodes: RayNodes, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    begun: list[Run] = []

    def begin(steps: int, prepare: Callable[[Run], object] = lambda training: None, **settings: float) -> Run:
        begun.append(Run(nodes, tmp_path, steps, **settings))
        prepare(begun[-1])
        return begun[-1].begin()

    yield begin
    for each in begun:
        each.runtime.request_stop("the test is over")
        each.end()
        # Of a host that is gone for good nobody is left to give it back; what is in a machine's memory goes with it.
        ends = {event.host: isinstance(event, HostJoined) for event in each.of(HostJoined | HostLost)}
        stayed = [host for host, joined_last in ends.items() if joined_last]
        assert not [host for host in stayed if storage_in(tmp_path)(host).folder.exists()], "it outlived its agent"


def replayed(journal: list[Event | Command], settings: Settings) -> list[Event | Command]:
    supervisor = Supervisor(settings)
    again: list[Event | Command] = []
    for item in journal:
        if isinstance(item, Event):
            again += [item, *supervisor.handle(item)]
    return again


def test_workers_agents_and_nodes_are_killed_and_the_run_ends_with_all_its_steps(run, nodes, tmp_path: Path):
    (tmp_path / "wait").write_text("50")
    training = run(400)
    training.wait(lambda: training.step(1) >= 50)
    assert len({training.host(1, 0), training.host(1, 1)}) == 2, "members are spread over the nodes"

    began = time.monotonic()
    os.kill(training.pid(1, 1), signal.SIGKILL)
    training.wait(lambda: training.of(WorkerExited, signal=signal.SIGKILL))
    assert time.monotonic() - began < AT_ONCE_S
    (tmp_path / "wait").write_text("120")
    training.wait(lambda: training.step(2) >= 120)
    assert training.of(Form)[2].assignment.restore.step == 50

    lost, worker = training.host(2, 0), training.pid(2, 0)
    began = time.monotonic()
    training.agent(2, 0).kill()
    training.wait(lambda: training.of(HostLost, host=lost))
    assert time.monotonic() - began < AT_ONCE_S
    training.wait(lambda: identity_of(worker) is None)
    (tmp_path / "wait").write_text("200")
    training.wait(lambda: training.step(3) >= 200)
    # The node lives: it serves again, and tells what its memory still holds.
    training.wait(lambda: len(training.of(SnapshotTaken, host=lost, generation=2, step=120)) == 2)

    agent = training.agent(3, 0)
    raylet, workers = agent.parent(), [child for child in agent.children() if "guardian" not in str(child.cmdline())]
    lost, losses = training.host(3, 0), len(training.of(HostLost))
    # A kernel that closes a connection with unread bytes resets it, and a reset proves nothing about the other end.
    agent.suspend()
    training.wait(lambda: training.has_unread(agent.pid))
    began = time.monotonic()
    raylet.kill()
    training.wait(lambda: len(training.of(HostLost)) > losses)
    assert time.monotonic() - began < AT_ONCE_S
    assert not psutil.wait_procs(workers, PATIENCE_S)[1]
    nodes.kill(next(node for node in nodes.alive() if lost.endswith(node[:6])))
    (tmp_path / "wait").write_text("300")
    training.wait(lambda: training.step(4) >= 300)

    joins = len(training.of(HostJoined))
    nodes.add()
    training.wait(lambda: len(training.of(HostJoined)) > joins)
    (tmp_path / "wait").unlink()
    assert training.end() == Finish("finished", "the training is complete at step 400")
    restored = [form.assignment.restore for form in training.of(Form) if form.assignment.rank == 0]
    # Both members of generation 3 were on the node that survived: the other one holds what generation 2 had done.
    assert [place and place.step for place in restored] == [None, 50, 120, 120]
    assert replayed(training.journal, training.settings) == training.journal


def test_a_snapshot_reaches_a_replacement_host_through_the_object_store(run, nodes, tmp_path: Path):
    (tmp_path / "wait").write_text("40")
    training = run(80, workers=NODES * CPUS_PER_NODE)
    training.wait(lambda: training.step(1) >= 40)
    # Every slot is taken, so the next generation needs the node that takes the lost one's place and has no snapshot.
    lost, kept = dict.fromkeys(training.host(1, rank) for rank in range(NODES * CPUS_PER_NODE))
    nodes.kill(next(node for node in nodes.alive() if lost.endswith(node[:6])))
    training.wait(lambda: training.of(HostLost, host=lost))
    nodes.add()
    training.wait(lambda: training.step(2) >= 40)
    (new,) = {event.host for event in training.of(HostJoined)} - {lost, kept}
    assignments = [form.assignment for form in training.of(Form) if form.assignment.generation == 2]
    assert {one.itself.host for one in assignments} == {kept, new}
    assert {one.restore.host for one in assignments} == {kept} and assignments[0].restore.step >= 40
    fetched = storage_in(tmp_path)(new).snapshot(kept)
    assert int(fetched.read_text().split()[0]) == assignments[0].restore.step
    (tmp_path / "wait").unlink()
    assert training.end() == Finish("finished", "the training is complete at step 80")


def test_a_node_that_is_drained_gives_notice_and_its_workers_move(run, nodes, tmp_path: Path):
    nodes.add()
    (tmp_path / "wait").write_text("30")
    training = run(60)
    training.wait(lambda: training.step(1) >= 30)
    leaving = training.host(1, 0)
    node = next(node for node in nodes.alive() if leaving.endswith(node[:6]))
    nodes.drain(node, 40.0)
    training.wait(lambda: training.of(HostDraining, host=leaving))
    assert 20 < training.of(HostDraining)[0].notice_s <= 40
    training.wait(lambda: training.step(2) > 0)
    assert leaving not in {training.host(2, 0), training.host(2, 1)}
    (tmp_path / "wait").unlink()
    assert training.end().outcome == "finished"
    nodes.kill(node)
    assert len(nodes.alive()) == 2


def test_a_signal_to_an_agent_is_notice_too(run, tmp_path: Path):
    (tmp_path / "wait").write_text("20")
    training = run(40)
    training.wait(lambda: training.step(1) >= 20)
    training.agent(1, 0).terminate()
    training.wait(lambda: training.of(HostDraining, host=training.host(1, 0)))
    (tmp_path / "wait").unlink()
    assert training.end().outcome == "finished"


def test_a_run_without_room_says_what_is_missing_waits_and_ends(run):
    training = run(10, workers=20, resources_s=0.5)
    finish = training.end()
    assert finish.outcome == "no_resources" and "20 workers are needed" in finish.reason
    missing = "20 workers with 1 CPU each are needed, and the Ray cluster has room for "
    assert any(text.startswith(missing) for text in training.said), training.said


def test_a_run_folder_that_the_nodes_do_not_share_is_found_before_a_worker_starts(run, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()

    def strange(training: Run) -> None:
        training.hosts._probe = Probe(tmp_path / "elsewhere")

    training = run(10, prepare=strange)
    assert training.end() is None
    assert "set run.dir to a path on storage that all hosts share" in str(training.error)
    assert not training.of(HostJoined)


def test_a_node_with_another_version_is_refused_by_name(tmp_path: Path):
    plan = AgentPlan("node1", 1, 1, "", "", "", "", "", 1.0, partial(trains, "", 1), storage_in(tmp_path))
    problem = RayAgent(plan, "0.0.1").begin().problem
    assert problem is not None and problem.startswith("node1 cannot serve this run: it has phalanx ")
    assert "0.0.1" in problem
