"""A fleet whose workers progress in stretches: nothing is simulated while nothing but steps happens.

A stretch is a formula from its beginning, so that ten days of ten thousand hosts are as many events as they have
failures, times the hosts. The workers' reports of a stretch reach the supervisor at its end, each host's newest only,
as they would through the runtime's coalescing with a very long tick.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.assignment import Assignment
from cluster.simulation.virtual_time import VirtualTime
from cluster.simulation.workload import Workload
from cluster.supervisor.commands import Command, Form, Kill, ReleaseHost, StartWorker, Stop
from cluster.supervisor.events import CheckpointDurable, Event, Progressed, SnapshotTaken, WorkerExited, WorkerReady


@dataclass
class Ledger:
    """Where the time went, in seconds, and what was done meanwhile.

    Attributes:
        steps: made, those that were made again included.
        lost_steps: that had to be made again.
        training: seconds in which steps were made, stalls included.
        detection, gathering, take_up: seconds without steps: until a loss is known, until the next generation is
            formed, until it trains.
        restarts: generations after the first.
    """

    steps: int = 0
    lost_steps: int = 0
    training: float = 0.0
    detection: float = 0.0
    gathering: float = 0.0
    take_up: float = 0.0
    restarts: int = 0


@dataclass(slots=True, eq=False)
class _Stretch:
    """A generation's training without interruption.

    Attributes:
        since: when it took its first step; None while it takes up its part.
        step: completed steps at its beginning.
        ended: whether it makes no more steps.
    """

    assignment: Assignment
    step: int
    step_s: float
    formed_at: float
    since: float | None = None
    ended: bool = False
    members: dict[str, str] = field(default_factory=dict)


class CoarseFleet:
    """Hosts and workers that do what they are told, and train in stretches.

    Args:
        workload: see there.
        time: the clock.
        rng: draws how long starts take.
        report: carries an event to the supervisor.
        release: called with a host that is given back.
    """

    def __init__(
        self,
        workload: Workload,
        time: VirtualTime,
        rng: random.Random,
        report: Callable[[Event], None],
        release: Callable[[str], None],
    ) -> None:
        self._workload, self._time, self._rng = workload, time, rng
        self._report, self._release = report, release
        self.ledger = Ledger()
        self.alive: dict[str, dict[str, None]] = {}  # living host to its workers
        self.checkpoint_step = 0
        self._hosts: dict[str, str] = {}  # living worker to its host
        self._snapshots: dict[str, int] = {}
        self._stretch: _Stretch | None = None
        self._best_step = 0
        self._down_since = 0.0
        self._known_at: float | None = 0.0

    @property
    def best_step(self) -> int:
        """The most steps that were ever completed."""
        return max(self._best_step, self._step_now())

    def join(self, host: str) -> None:
        """A host is there, with nothing on it."""
        self.alive[host] = {}

    def end_host(self, host: str) -> None:
        """A host ends with its workers and its memory; the generation that had members on it stands still."""
        workers = self.alive.pop(host)
        stretch = self._stretch
        if stretch is not None and not stretch.ended and any(worker in stretch.members for worker in workers):
            self.end_stretch()
        self._snapshots.pop(host, None)
        for worker in workers:
            del self._hosts[worker]

    def note_known(self) -> None:
        """The supervisor is about to learn why the training stands still."""
        if self._known_at is None and self._stretch is not None and self._stretch.ended:
            self._known_at = self._time.now
            self.ledger.detection += self._time.now - self._down_since

    def carry_out(self, commands: list[Command]) -> None:
        """The agents do what they are told."""
        killed: list[str] = []
        stopped: list[str] = []
        forms: list[Form] = []
        for command in commands:
            match command:
                case StartWorker(worker, host):
                    self._start(worker, host)
                case Kill(worker):
                    killed.append(worker)
                case Stop(worker):
                    stopped.append(worker)
                case Form():
                    forms.append(command)
                case ReleaseHost(host):
                    self._release(host)
        if killed:
            self._end_stretch_of(killed)
            self._time.after(self._workload.exit_s, self._exit, killed, None)
        if stopped:
            self._save_and_exit(stopped)
        if forms:
            self._form(forms)

    def report_stretch(self) -> None:
        """Says how far the members are, and what the hosts' memory and the disk hold."""
        stretch = self._stretch
        if stretch is None or stretch.since is None:
            return
        now, generation = self._time.now, stretch.assignment.generation
        step = self._step_now()
        workload = self._workload
        snapshot = step // workload.snapshot_every * workload.snapshot_every
        written = max(0, step - int(workload.checkpoint_write_s / stretch.step_s))
        checkpoint = written // workload.checkpoint_every * workload.checkpoint_every
        self._report(Progressed(now, stretch.assignment.chief.worker, generation, step, "step"))
        if checkpoint > max(stretch.step, self.checkpoint_step):
            self.checkpoint_step = checkpoint
            self._report(CheckpointDurable(now, generation, checkpoint))
        if snapshot > stretch.step:
            for host in dict.fromkeys(stretch.members.values()):
                if host in self.alive and self._snapshots.get(host) != snapshot:
                    self._snapshots[host] = snapshot
                    self._report(SnapshotTaken(now, host, generation, snapshot))

    def end_stretch(self) -> None:
        """The members make no more steps."""
        stretch, now = self._stretch, self._time.now
        assert stretch is not None and not stretch.ended
        self.report_stretch()
        if stretch.ended:  # the supervisor had waited for a snapshot to end it
            return
        step = self._step_now()
        if stretch.since is None:
            self.ledger.take_up += now - stretch.formed_at
        else:
            self.ledger.training += now - stretch.since
            self.ledger.steps += step - stretch.step
        self._best_step = max(self._best_step, step)
        stretch.step, stretch.since, stretch.ended = step, None, True
        self._down_since, self._known_at = now, None

    def close(self) -> None:
        """The time that was to be looked at is over."""
        if self._stretch is not None and not self._stretch.ended:
            self.end_stretch()
        elif self._known_at is not None:
            self.ledger.gathering += self._time.now - self._known_at
        else:
            self.ledger.detection += self._time.now - self._down_since

    def _step_now(self) -> int:
        stretch = self._stretch
        if stretch is None:
            return 0
        if stretch.since is None:
            return stretch.step
        return stretch.step + int((self._time.now - stretch.since) / stretch.step_s)

    def _start(self, worker: str, host: str) -> None:
        if host in self.alive:
            self.alive[host][worker] = None
            self._hosts[worker] = host
            self._time.after(self._workload.start_s * self._rng.uniform(1.0, 2.0), self._ready, worker, host)

    def _ready(self, worker: str, host: str) -> None:
        if worker in self._hosts:
            self._report(WorkerReady(self._time.now, worker, host, f"{host}:1"))

    def _end_stretch_of(self, workers: list[str]) -> None:
        stretch = self._stretch
        if stretch is not None and not stretch.ended and any(worker in stretch.members for worker in workers):
            self.end_stretch()
            self.note_known()

    def _exit(self, workers: list[str], code: int | None) -> None:
        for worker in workers:
            host = self._hosts.pop(worker, None)
            if host is not None:
                del self.alive[host][worker]
                signal = 9 if code is None else None
                self._report(WorkerExited(self._time.now, worker, host, code, signal, None))

    def _save_and_exit(self, workers: list[str]) -> None:
        stretch = self._stretch
        self._end_stretch_of(workers)
        if stretch is not None and stretch.step > self.checkpoint_step and self._has_all(stretch):
            self.checkpoint_step = stretch.step
            durable = CheckpointDurable(self._time.now, stretch.assignment.generation, stretch.step)
            self._time.after(self._workload.checkpoint_write_s, self._report, durable)
        self._time.after(self._workload.checkpoint_write_s + self._workload.exit_s, self._exit, workers, 0)

    def _form(self, forms: list[Form]) -> None:
        old, assignment, now = self._stretch, forms[0].assignment, self._time.now
        if old is not None and not old.ended:
            self.end_stretch()
        self.note_known()
        assert self._known_at is not None
        self.ledger.gathering += now - self._known_at
        members = {member.worker: member.host for member in assignment.members}
        survives = old is not None and any(worker in old.members for worker in members)
        if survives:
            assert old is not None
            step = old.step
        else:
            step = self.checkpoint_step if assignment.restore is None else assignment.restore.step
        self.ledger.lost_steps += max(0, (old.step if old else 0) - step)
        self.ledger.restarts += old is not None
        step_s = self._workload.stalled_step_s * self._workload.workers / len(members)
        self._stretch = _Stretch(assignment, step, step_s, now, members=members)
        if not self._has_all(self._stretch):  # one is gone, which is not known yet
            self.end_stretch()
            return
        self._time.after(self._workload.take_up_s, self._take_up, self._stretch)

    def _has_all(self, stretch: _Stretch) -> bool:
        return all(worker in self._hosts for worker in stretch.members)

    def _take_up(self, stretch: _Stretch) -> None:
        if stretch is self._stretch and not stretch.ended:
            now, generation = self._time.now, stretch.assignment.generation
            self.ledger.take_up += now - stretch.formed_at
            stretch.since = now
            for worker in stretch.members:
                self._report(Progressed(now, worker, generation, stretch.step, "step"))
