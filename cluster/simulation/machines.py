"""Simulated hosts with their agents and workers. They know nothing of the supervisor: they take commands and report.

Training is synchronous: a generation makes a round, which is some steps, when all its members are there and none is
stuck.
"""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.assignment import Assignment, ErrorReport
from cluster.simulation.virtual_time import VirtualTime
from cluster.supervisor.commands import Command, DumpStacks, Form, Kill, ReleaseHost, StartWorker, Stop
from cluster.supervisor.events import (
    CheckpointDurable,
    Completed,
    Event,
    Heartbeat,
    PeerAccused,
    Progressed,
    SnapshotTaken,
    WorkerExited,
    WorkerReady,
)


@dataclass(frozen=True)
class Training:
    """What the simulated workers do. Times in seconds.

    Attributes:
        rounds: until the training is complete.
        steps: of one round, after which every member reports.
        round_s, start_s, restore_s, compile_s, evaluate_s, save_s: how long each takes.
        write_s: from a checkpoint's copy, after which the training goes on, to its being durable.
        snapshot_every, checkpoint_every, evaluate_every: in rounds.
    """

    rounds: int = 30
    steps: int = 10
    round_s: float = 1.0
    start_s: float = 2.0
    restore_s: float = 0.1
    compile_s: float = 1.0
    evaluate_s: float = 2.0
    save_s: float = 0.2
    write_s: float = 0.5
    snapshot_every: int = 1
    checkpoint_every: int = 8
    evaluate_every: int = 10

    @property
    def total_steps(self) -> int:
        """The steps of the whole training."""
        return self.rounds * self.steps


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    """A worker process.

    Attributes:
        frozen: it does nothing at all, as under SIGSTOP.
        stuck: it lives and makes no progress.
        unkillable: it does not end when it is killed.
        garbles: what it sends to its peers is wrong.
        mishears: what it hears from its peers is wrong, whatever they send.
        exited: how it ended: its exit code, its signal, its error.
    """

    name: str
    host: "SimulatedHost"
    alive: bool = True
    ready: bool = False
    frozen: bool = False
    stuck: bool = False
    unkillable: bool = False
    garbles: bool = False
    mishears: bool = False
    asked_to_stop: bool = False
    group: "Group | None" = None
    rank: int = -1
    exited: tuple[int | None, int | None, ErrorReport | None] = (None, None, None)

    @property
    def works(self) -> bool:
        """Whether it takes part."""
        return self.alive and not self.frozen and not self.stuck


@dataclass(slots=True, eq=False)
class SimulatedHost:
    """A machine with its agent.

    Attributes:
        slots: members it offers room for.
        alive: whether the machine and its agent run.
        cut_off: whether no message passes between it and the supervisor.
        bad: every worker ends as soon as it is started.
        slowness: times the usual time that a round takes here.
        snapshot: the generation and step in its memory.
        workers: all that were ever ordered here, dead ones too.
    """

    name: str
    slots: int
    alive: bool = True
    cut_off: bool = False
    bad: bool = False
    slowness: float = 1.0
    snapshot: tuple[int, int] | None = None
    workers: dict[str, SimulatedWorker] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Group:
    """The workers that have taken up their part in one generation.

    Attributes:
        joined: those that did, by rank.
        replaceable_from: of the settings: members of this rank and above serve the others.
        step: completed steps; None until the state is restored.
        busy: whether the end of a round, or of what is in its place, is planned.
        over: whether a member has heard wrong data in it.
    """

    assignment: Assignment
    replaceable_from: int | None = None
    joined: dict[int, SimulatedWorker] = field(default_factory=dict)
    step: int | None = None
    rounds: int = 0
    busy: bool = False
    over: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether all members are there and none is stuck or has left; of those that serve, the dead are not missed."""
        if self.over or len(self.joined) < self.assignment.num_workers:
            return False
        needed = [worker for rank, worker in self.joined.items() if worker.alive or not self.is_served_by(rank)]
        serving = [worker for worker in needed if worker.group is self and self.is_served_by(worker.rank)]
        is_served = self.replaceable_from is None or bool(serving)
        return is_served and all(worker.works and worker.group is self for worker in needed)

    def is_served_by(self, rank: int) -> bool:
        """Whether the member of this rank serves the others."""
        return self.replaceable_from is not None and rank >= self.replaceable_from


class Machines:
    """All hosts, and the training on them.

    Args:
        time: the clock.
        rng: draws delays; the only source of chance.
        training: what the workers do.
        report: is given each event with its host, to carry it to the supervisor.

    Attributes:
        hosts: by name, also dead ones.
        workers: by name, also dead ones.
        checkpoints: the steps on durable storage, oldest first.
        acknowledged: generation and step of all that were ever there.
        disk_full: whether nothing more can be written there.
        on_round: called with each group that completes a round.
        on_released: called with each host that is to go.
        user_error_at: the step at which rank 0 raises an error of the user's; None: it does not.
        user_error_left: how often it still does.
        replaceable_from: of the settings.
        forms_anew: whether survivors form the next group, and find out that what they hear is wrong.
        damaged_ways: pairs of hosts between which everything is damaged.
    """

    def __init__(
        self, time: VirtualTime, rng: random.Random, training: Training, report: Callable[[SimulatedHost, Event], None]
    ) -> None:
        self._time, self._rng, self._training, self._report = time, rng, training, report
        self.hosts: dict[str, SimulatedHost] = {}
        self.workers: dict[str, SimulatedWorker] = {}
        self.groups: dict[int, Group] = {}
        self.checkpoints: list[int] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.disk_full = False
        self.is_complete = False
        self.on_round: Callable[[Group], None] = lambda group: None
        self.on_released: Callable[[SimulatedHost], None] = lambda host: None
        self.user_error_at: int | None = None
        self.user_error_left = 0
        self.replaceable_from: int | None = None
        self.forms_anew = False
        self.damaged_ways: list[tuple[str, str]] = []

    @property
    def checkpoint_step(self) -> int:
        """The newest step on durable storage; 0: there is none."""
        return max(self.checkpoints, default=0)

    def carry_out(self, host: SimulatedHost, command: Command) -> None:
        """An agent does what it is told."""
        if not host.alive:
            return
        match command:
            case StartWorker():
                self._start(host, command.worker)
            case Form():
                self._form(host.workers.get(command.worker), command.assignment)
            case Stop():
                self._stop(host.workers.get(command.worker))
            case Kill():
                self._kill(host, command.worker)
            case ReleaseHost():
                self.on_released(host)
            case DumpStacks():
                pass

    def exit(
        self, worker: SimulatedWorker, code: int | None, number: int | None = None, error: ErrorReport | None = None
    ) -> None:
        """A worker ends, and its agent says so."""
        if worker.alive:
            worker.alive, worker.exited = False, (code, number, error)
            self._say_exited(worker)
            self._miss(worker)

    def end_host(self, host: SimulatedHost) -> None:
        """A machine ends with all that is on it; nobody says so."""
        host.alive, host.snapshot = False, None
        self.end_workers(host)

    def end_workers(self, host: SimulatedHost) -> None:
        """An agent has ended: its workers end with it."""
        for worker in host.workers.values():
            if worker.alive:
                worker.alive = False
                self._miss(worker)

    def thaw(self, worker: SimulatedWorker) -> None:
        """A frozen or stuck worker goes on."""
        worker.frozen = worker.stuck = False
        if worker.group is not None and worker.alive:
            self._go_on(worker.group)

    def _start(self, host: SimulatedHost, name: str) -> None:
        worker = host.workers.get(name)
        if worker is None:
            worker = host.workers[name] = self.workers[name] = SimulatedWorker(name, host)
            self._time.after(self._training.start_s * self._rng.uniform(0.5, 2.0), self._started, worker)
        elif not worker.alive:
            self._say_exited(worker)

    def _started(self, worker: SimulatedWorker) -> None:
        if not worker.alive:
            return
        if worker.host.bad:
            self.exit(worker, 1)
            return
        worker.ready = True
        self._report(worker.host, WorkerReady(self._time.now, worker.name, worker.host.name, f"{worker.host.name}:1"))
        self._beat(worker)

    def _beat(self, worker: SimulatedWorker) -> None:
        if worker.alive:
            if not worker.frozen:
                self._report(worker.host, Heartbeat(self._time.now, worker.name))
            self._time.after(2.0, self._beat, worker)

    def _kill(self, host: SimulatedHost, name: str) -> None:
        worker = host.workers.get(name)
        if worker is None:  # the order to start it may still be on its way, and must find it dead
            worker = host.workers[name] = self.workers[name] = SimulatedWorker(name, host, alive=False)
        if not worker.alive:
            self._say_exited(worker)
        elif not worker.unkillable:
            self._time.after(self._rng.uniform(0.01, 0.3), self.exit, worker, None, signal.SIGKILL)

    def _say_exited(self, worker: SimulatedWorker) -> None:
        self._report(worker.host, WorkerExited(self._time.now, worker.name, worker.host.name, *worker.exited))

    def _stop(self, worker: SimulatedWorker | None) -> None:
        if worker is None or not worker.works:
            return
        worker.asked_to_stop = True
        group = worker.group
        newest = max(self.groups, default=0)
        if group is not None and self.forms_anew:
            self._go_on(group)  # it has a state, and saves it with whoever is left
        elif group is None or group.assignment.generation < newest or group.over:
            self._time.after(0.1, self.exit, worker, 130 if self.forms_anew else 0)
        else:
            self._go_on(group)

    def _form(self, worker: SimulatedWorker | None, assignment: Assignment) -> None:
        if worker is None or not worker.works or not worker.ready:
            return
        if worker.group is not None and worker.group.assignment.generation >= assignment.generation:
            return
        group = self.groups.setdefault(assignment.generation, Group(assignment, self.replaceable_from))
        old, worker.group, worker.rank = worker.group, group, assignment.rank
        group.joined[assignment.rank] = worker
        if old is not None and old.step is not None and group.step is None:
            group.step = old.step  # a survivor brings its state along
        step = group.step or 0
        self._progress(worker, step, "restore")
        self._go_on(group)

    def _go_on(self, group: Group) -> None:
        if group.busy or not group.is_whole:
            return
        group.busy = True
        if group.rounds == 0:
            self._time.after(self._training.restore_s, self._restored, group)
        else:
            self._time.after(self._round_s(group), self._round, group)

    def _round_s(self, group: Group) -> float:
        return self._training.round_s * max(worker.host.slowness for worker in group.joined.values())

    def _restored(self, group: Group) -> None:
        place = group.assignment.restore
        if group.step is None:
            group.step = self.checkpoint_step
            if place is not None:
                host = self.hosts.get(place.host)
                if host is None or host.snapshot is None or host.snapshot[1] != place.step:
                    group.step = None
                    group.busy = False
                    message = f"no snapshot of step {place.step} on {place.host}"
                    error = ErrorReport("RestoreError", message, "Traceback ...", 0, is_user_error=False)
                    self.exit(group.joined[0], 1, None, error)
                    return
                group.step = place.step
        for worker in group.joined.values():
            if worker.works:
                self._progress(worker, group.step, "compile")
        self._time.after(self._training.compile_s, self._compiled, group)

    def _compiled(self, group: Group) -> None:
        group.busy = False
        group.rounds = 1
        if group.is_whole:
            self._all_progress(group)
            self._go_on(group)

    def _round(self, group: Group) -> None:
        group.busy = False
        if not group.is_whole:
            return
        if any(worker.asked_to_stop for worker in self._acting(group)):
            self._save_and_end(group)
            return
        assert group.step is not None
        if self._raises_user_error(group) or self._hears_wrong_data(group):
            return
        training = self._training
        group.step = min(group.step + training.steps, training.total_steps)
        group.rounds += 1
        self.on_round(group)
        self._all_progress(group)
        if group.rounds % training.snapshot_every == 0:
            self._snapshot(group)
        chief = group.joined[0]
        if group.step >= training.total_steps:
            group.busy = True
            self._time.after(training.save_s, self._complete, group)
        elif group.rounds % training.checkpoint_every == 0:
            self._pause(group, chief, "checkpoint", training.save_s)
        elif group.rounds % training.evaluate_every == 0:
            self._pause(group, chief, "evaluate", training.evaluate_s)
        else:
            self._go_on(group)

    def _raises_user_error(self, group: Group) -> bool:
        at = self.user_error_at
        if at is None or not self.user_error_left or group.step is None or group.step < at:
            return False
        self.user_error_left -= 1
        error = ErrorReport("ValueError", f"bad sample at 0x{self._rng.getrandbits(32):x}", "Traceback ...", at, True)
        self.exit(group.joined[0], 1, None, error)
        return True

    def _hears_wrong_data(self, group: Group) -> bool:
        """Whether a member hears something wrong from another, and the group is over."""
        members = list(group.joined.values()) if self.forms_anew else []
        heard = [
            (hearer, sender)
            for hearer in members
            for sender in members
            if hearer is not sender and (hearer.mishears or sender.garbles or self._is_damaged(hearer, sender))
        ]
        if not heard:
            return False
        group.over = True
        # Some may be told of the next group before they hear anything, and each names the first that it hears.
        first: dict[str, SimulatedWorker] = {}
        for hearer, sender in self._rng.sample(heard, self._rng.randint(1, len(heard))):
            if hearer.name not in first:
                first[hearer.name] = sender
                self._time.after(self._rng.uniform(0.0, 0.2), self._accuse, hearer, group, sender)
        return True

    def _is_damaged(self, one: SimulatedWorker, other: SimulatedWorker) -> bool:
        return any({one.host.name, other.host.name} == set(way) for way in self.damaged_ways)

    def _accuse(self, worker: SimulatedWorker, group: Group, sender: SimulatedWorker) -> None:
        if worker.alive and worker.group is group:
            generation = group.assignment.generation
            if worker.works:
                accusation = PeerAccused(self._time.now, worker.name, generation, sender.name, "sent wrong data")
                self._report(worker.host, accusation)
            self._time.after(2.0, self._accuse, worker, group, sender)

    def _pause(self, group: Group, chief: SimulatedWorker, phase: str, seconds: float) -> None:
        group.busy = True
        self._progress(chief, group.step or 0, phase)
        self._time.after(seconds, self._resume, group, chief, phase)

    def _resume(self, group: Group, chief: SimulatedWorker, phase: str) -> None:
        group.busy = False
        if chief.works and chief.group is group:
            if phase == "checkpoint":
                self._time.after(self._training.write_s, self._written, group, chief, group.step or 0)
            self._progress(chief, group.step or 0, "step")
            self._go_on(group)

    def _written(self, group: Group, chief: SimulatedWorker, step: int) -> None:
        if chief.works and self._save(group, step):
            self._report_durable(group, chief, step)

    def _report_durable(self, group: Group, chief: SimulatedWorker, step: int) -> None:
        self._report(chief.host, CheckpointDurable(self._time.now, group.assignment.generation, step))

    def _save(self, group: Group, step: int) -> bool:
        if not self.disk_full:
            self.checkpoints = [*(saved for saved in self.checkpoints if saved != step), step]
            self.acknowledged.append((group.assignment.generation, step))
        return not self.disk_full

    def _not_saved(self, chief: SimulatedWorker, step: int) -> None:
        """The last state of a run cannot be written: that is an error for the user."""
        self.exit(chief, 1, None, ErrorReport("StateNotSaved", "the disk is full", "Traceback ...", step, True))

    def _snapshot(self, group: Group) -> None:
        for host in dict.fromkeys(worker.host for worker in group.joined.values()):
            host.snapshot = (group.assignment.generation, group.step or 0)
            self._report(host, SnapshotTaken(self._time.now, host.name, *host.snapshot))

    def _save_and_end(self, group: Group) -> None:
        if all(worker.asked_to_stop for worker in self._acting(group)):
            if not self._save(group, group.step or 0):
                self._not_saved(group.joined[0], group.step or 0)
                return
            self._report_durable(group, group.joined[0], group.step or 0)
            if self._rng.random() < 0.5:
                self._snapshot(group)
            for worker in list(group.joined.values()):
                self._time.after(self._rng.uniform(0.0, 0.3), self.exit, worker, 0)

    def _complete(self, group: Group) -> None:
        group.busy = False
        if not group.is_whole:
            return
        step, generation = group.step or 0, group.assignment.generation
        if not self._save(group, step):
            self._not_saved(group.joined[0], step)
            return
        self.is_complete = True
        for worker in group.joined.values():
            if worker in self._acting(group):
                self._report(worker.host, Completed(self._time.now, worker.name, generation, step))
            self._time.after(self._rng.uniform(0.0, 0.3), self.exit, worker, 0)

    def _all_progress(self, group: Group) -> None:
        for worker in group.joined.values():
            self._progress(worker, group.step or 0, "step")

    def _progress(self, worker: SimulatedWorker, step: int, phase: str) -> None:
        assert worker.group is not None
        if worker not in self._acting(worker.group):
            if phase != "restore":
                return
            phase = "serve"
        generation = worker.group.assignment.generation
        self._report(worker.host, Progressed(self._time.now, worker.name, generation, step, phase))

    def _acting(self, group: Group) -> list[SimulatedWorker]:
        """The members that decide something: all, or the one that the others serve."""
        return [worker for rank, worker in group.joined.items() if group.replaceable_from is None or rank == 0]

    def _miss(self, worker: SimulatedWorker) -> None:
        group = worker.group
        if group is not None and group.joined.get(worker.rank) is worker:
            if group.is_served_by(worker.rank):
                self._go_on(group)  # the others may have waited for it
            else:
                self._collective_fails(group)

    def _collective_fails(self, group: Group) -> None:
        """A peer is gone: some of the others notice by an error of their collective, some wait for ever."""
        for worker in group.joined.values():
            if worker.works and worker.group is group and not self.is_complete and self._rng.random() < 0.3:
                if worker.asked_to_stop:
                    continue
                error = ErrorReport("UnavailableError", "connection reset by peer", "Traceback ...", 0, False)
                self._time.after(self._rng.uniform(0.05, 1.0), self._fail_if_still, worker, group, error)

    def _fail_if_still(self, worker: SimulatedWorker, group: Group, error: ErrorReport) -> None:
        if worker.works and worker.group is group:
            self.exit(worker, 1, None, error)
