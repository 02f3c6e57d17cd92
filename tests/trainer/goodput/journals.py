"""Journals of runs that never were, written the way a supervisor and its workers write them."""

from typing import Any

from cluster.assignment import Assignment, ErrorReport, Member, SnapshotPlace
from cluster.supervisor.commands import Finish, Form, Kill, StartWorker, Stop
from cluster.supervisor.events import (
    Completed,
    Event,
    HostDraining,
    HostJoined,
    HostLost,
    Progressed,
    StopRequested,
    Ticked,
    WorkerExited,
    WorkerReady,
)
from cluster.supervisor.journal_replay import started_record
from cluster.supervisor.records import to_record
from cluster.supervisor.settings import Settings, Sizes

EPOCH = 1_000_000.0  # what the clock on the wall shows when the run's own clock shows 0


class Story:
    """A supervised run of two workers, told event by event."""

    def __init__(self, at: float = 0.0, reform: bool = False, replaceable_from: int | None = None) -> None:
        settings = Settings(sizes=Sizes(min=2, max=2), reform=reform, replaceable_from=replaceable_from)
        self.records: list[dict[str, Any]] = []
        self.generation = 0
        self.members: tuple[str, ...] = ()
        self._at = at
        self._record(started_record(settings, continued=False))
        self.event(HostJoined(at, "a", 2))
        self.event(Ticked(at))

    def _record(self, record: dict[str, Any]) -> None:
        # Written a little later than it happened, as a busy process does.
        self.records.append({"time": EPOCH + self._at + 0.01, "generation": 0, **record})

    def event(self, event: Event) -> None:
        self._at = event.at
        self._record(to_record(event))

    def command(self, command: Any) -> None:
        self._record(to_record(command))

    def worker_event(self, at: float, name: str, **fields: Any) -> None:
        self.records.append({"time": EPOCH + at, "event": name, "generation": self.generation, "rank": 0, **fields})

    def start(self, *workers: str) -> None:
        for worker in workers:
            self.command(StartWorker(worker, "a"))

    def ready(self, at: float, *workers: str) -> None:
        for worker in workers:
            self.event(WorkerReady(at, worker, "a", "a:1"))

    def form(self, *workers: str, restore: int | None = None) -> None:
        self.generation += 1
        self.members = workers
        members = tuple(Member(worker, "a", rank, "a:1") for rank, worker in enumerate(workers))
        place = None if restore is None else SnapshotPlace(restore, "a")
        for rank, worker in enumerate(workers):
            self.command(Form(worker, Assignment(self.generation, rank, members, place)))

    def step_in(self, worker: str, rank: int) -> None:
        """Another worker takes a place in the generation that goes on."""
        self.members = tuple(worker if index == rank else name for index, name in enumerate(self.members))
        members = tuple(Member(name, "a", index, "a:1") for index, name in enumerate(self.members))
        self.command(Form(worker, Assignment(self.generation, rank, members, None)))

    def report(self, at: float, step: int, phase: str) -> None:
        for worker in self.members:
            self.tell(at, worker, step, phase)

    def tell(self, at: float, worker: str, step: int, phase: str) -> None:
        self.event(Progressed(at, worker, self.generation, step, phase))

    def exit(
        self, at: float, worker: str, code: int | None = 0, signal: int | None = None, error: ErrorReport | None = None
    ) -> None:
        self.event(WorkerExited(at, worker, "a", None if signal else code, signal, error))

    def kill(self, worker: str, reason: str) -> None:
        self.command(Kill(worker, reason))

    def stop(self, worker: str, reason: str) -> None:
        self.command(Stop(worker, reason))

    def drain(self, at: float) -> None:
        self.event(HostDraining(at, "a", 30.0))

    def lose_host(self, at: float) -> None:
        self.event(HostLost(at, "a", "it does not answer"))

    def tick(self, at: float) -> None:
        self.event(Ticked(at))

    def ask_to_stop(self, at: float) -> None:
        self.event(StopRequested(at, "SIGTERM"))

    def complete(self, at: float, step: int) -> None:
        for worker in self.members:
            self.event(Completed(at, worker, self.generation, step))

    def finish(self, outcome: Any = "finished") -> None:
        self.command(Finish(outcome, "so it is"))

    def begin(self) -> None:
        """Two workers start at 0, train from 3 and complete ten steps a second until 10."""
        self.start("w1", "w2")
        self.ready(1.0, "w1", "w2")
        self.form("w1", "w2")
        self.report(1.5, 0, "restore")
        self.report(2.0, 0, "compile")
        self.report(3.0, 10, "step")
        self.report(10.0, 80, "step")
