"""The whole chain on this machine: a scripted supervisor, the runtime, two emulated hosts, real workers."""

from pathlib import Path

import pytest

from cluster.assignment import Assignment, Member, SnapshotPlace
from cluster.local import LocalHost, LocalHosts
from cluster.runtime import Runtime
from cluster.supervisor.commands import Announce, Command, Finish, Form, Kill, ReleaseHost, StartWorker, Stop
from cluster.supervisor.events import (
    Completed,
    Event,
    HostJoined,
    HostLost,
    Progressed,
    Ticked,
    WorkerExited,
    WorkerReady,
)
from cluster.worker_environment import Share
from tests.cluster.agent_workers import LIMIT_S, Recorder, children, program, read

pytestmark = pytest.mark.processes

# Trains ten steps; the first generation stays in its checkpoint after four.
TRAINS = """
link.ready(f"{link.host_address}:{os.getpid()}")
given = link.wait_for_assignment()
if given is None:
    sys.exit(0)
step = given.restore.step if given.restore else 0
print("rank", given.rank, "of", given.num_workers, "from step", step)
link.progressed(given.generation, step, "restore")
while step < 10:
    step += 1
    link.progressed(given.generation, step, "step")
    if step == 4 and given.generation == 1:
        link.progressed(given.generation, step, "checkpoint")
        time.sleep(600)
link.completed(given.generation, step)
"""


class TwoWorkersAndAStandby:
    """A supervisor for this one story: one failure, one recovery."""

    def __init__(self) -> None:
        self.ready: dict[str, WorkerReady] = {}
        self.members: list[str] = []
        self.generation = 0
        self.exits: list[WorkerExited] = []
        self.completed: set[str] = set()
        self.saving: set[str] = set()
        self.last_at = 0.0

    def handle(self, event: Event) -> list[Command]:
        assert not isinstance(event, Ticked) or event.at < self.last_at + LIMIT_S, "the story is stuck"
        if not isinstance(event, Ticked):
            self.last_at = event.at
        match event:
            case HostJoined(host="a"):
                return [StartWorker("w1", "a"), StartWorker("w3", "a")]
            case HostJoined(host="b"):
                return [StartWorker("w2", "b"), StartWorker("w4", "b")]
            case WorkerReady():
                self.ready[event.worker] = event
                return self.form(["w1", "w2"], None) if len(self.ready) == 4 else []
            case WorkerExited() if event.worker in self.members and event.worker not in self.completed:
                self.exits.append(event)
                if len(self.exits) == 1:
                    return [Kill(other, "generation 1 ended") for other in self.members if other != event.worker]
                said = f"{self.exits[0].worker} was ended by signal {self.exits[0].signal}"
                return [Announce(said), *self.form(["w3", "w4"], SnapshotPlace(4, "a"))]
            case Progressed(phase="checkpoint"):
                self.saving.add(event.worker)
                return [Kill("w2", "this is how it dies here")] if len(self.saving) == 2 else []
            case Completed():
                self.completed.add(event.worker)
                if len(self.completed) == 2:
                    return [ReleaseHost("b"), Finish("finished", f"at step {event.step}")]
        return []

    def form(self, workers: list[str], restore: SnapshotPlace | None) -> list[Command]:
        self.generation += 1
        self.members = workers
        ready = [self.ready[worker] for worker in workers]
        members = tuple(Member(r.worker, r.host, rank, r.address) for rank, r in enumerate(ready))
        return [
            Form(worker, Assignment(self.generation, rank, members, restore)) for rank, worker in enumerate(workers)
        ]


def test_a_killed_worker_is_replaced_by_the_standbys(tmp_path: Path):
    before = set(children())
    hosts = LocalHosts([LocalHost("a"), LocalHost("b")], program(TRAINS), tmp_path)
    journal: list[Event | Command] = []
    said: list[str] = []
    supervisor = TwoWorkersAndAStandby()
    finish = Runtime(supervisor, hosts, journal.append, said.append).run()
    assert finish == Finish("finished", "at step 10")
    assert said == ["w2 was ended by signal 9"]
    assert [(e.worker, e.signal) for e in supervisor.exits] == [("w2", 9), ("w1", 9)]
    assert set(children()) == before

    def first_line(path: str) -> str:
        return next(line for line in read(tmp_path / path).splitlines() if line.startswith("rank"))

    assert first_line("1/0.log") == "rank 0 of 2 from step 0"
    assert first_line("1/1.log") == "rank 1 of 2 from step 0"
    assert first_line("2/0.log") == "rank 0 of 2 from step 4"
    assert first_line("2/1.log") == "rank 1 of 2 from step 4"
    # How far the dead one was is known before its death is.
    told = [entry for entry in journal if getattr(entry, "worker", "") == "w2" and isinstance(entry, Event)]
    assert isinstance(told[-1], WorkerExited)
    assert max(entry.step for entry in told if isinstance(entry, Progressed)) == 4


def test_a_host_that_is_lost_takes_its_workers_along_and_may_come_back(tmp_path: Path):
    hosts = LocalHosts([LocalHost("a", (Share(), Share())), LocalHost("b")], program(TRAINS), tmp_path)
    recorder = Recorder()
    hosts.open(recorder)
    try:
        assert [(event.host, event.slots) for event in recorder.of(HostJoined)] == [("a", 2), ("b", 1)]
        hosts.start("w1", "a")
        hosts.start("w2", "b")
        recorder.first(WorkerReady, "w1")
        recorder.first(WorkerReady, "w2")
        hosts.lose("a", "the power failed")
        assert recorder.exit_of("w1").signal == 9
        assert recorder.first(HostLost).reason == "the power failed"
        for order in (hosts.kill, hosts.stop):
            order("w1", "too late")
        hosts.dump_stacks("w1")
        hosts.start("w3", "a")
        hosts.join(LocalHost("a"))
        hosts.start("w4", "a")
        recorder.first(WorkerReady, "w4")
        assert not recorder.of(WorkerExited, "w2")
        hosts.stop("w2", "enough")
        assert recorder.exit_of("w2").code == 0
    finally:
        hosts.close()
    assert recorder.exit_of("w4").signal == 9
    assert not recorder.of(WorkerReady, "w3")


def test_a_stop_reaches_the_supervisor_from_any_thread(tmp_path: Path):
    hosts = LocalHosts([LocalHost("a")], program(TRAINS), tmp_path)

    class Stops:
        def handle(self, event: Event) -> list[Command]:
            match event:
                case HostJoined():
                    return [StartWorker("w1", "a")]
                case WorkerReady():
                    runtime.request_stop("Ctrl-C")
                case WorkerExited():
                    return [Finish("stopped", f"code {event.code}")]
            return [Stop("w1", event.reason)] if hasattr(event, "reason") else []

    runtime = Runtime(Stops(), hosts, lambda entry: None, lambda text: None)
    assert runtime.run() == Finish("stopped", "code 0")
