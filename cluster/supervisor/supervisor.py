"""The supervisor: events in, commands out. It has no clock, does no I/O and draws no random numbers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cluster.supervisor import ending, gathering, running, stopping
from cluster.supervisor.commands import Command, Finish, Kill
from cluster.supervisor.events import (
    CheckpointDurable,
    Completed,
    DamageFound,
    Event,
    Heartbeat,
    HostDraining,
    HostJoined,
    HostLost,
    PeerAccused,
    Progressed,
    SnapshotTaken,
    StopRequested,
    Ticked,
    WorkerExited,
    WorkerLeaving,
    WorkerReady,
)
from cluster.supervisor.facts import (
    BoundaryReached,
    Death,
    Fact,
    HostLeaves,
    MemberAccused,
    MemberCompleted,
    MemberLeaves,
    MembersSuspected,
    StandbyReady,
    TimePassed,
    WorkersDied,
    death_of,
)
from cluster.supervisor.policies import Policies
from cluster.supervisor.run import Run
from cluster.supervisor.settings import Settings
from cluster.supervisor.states import Ended, Ending, Gathering, HandingOver, Running, State, Stopping, Waiting

_STEPS: dict[type, Callable[[Run, Any, Fact], State]] = {
    Gathering: gathering.step,
    Waiting: gathering.step,
    Running: running.step,
    HandingOver: ending.step,
    Ending: ending.step,
    Stopping: stopping.step,
}


class Supervisor:
    """Decides what the workers of one run do.

    An event first goes into the books, and becomes a fact if it means anything: messages that are late, twice or of
    unknown workers do not. The state then reacts to the fact, and names the next state.

    Args:
        settings: see there.
        policies: what to decide otherwise than the settings describe.

    >>> from cluster.supervisor.events import HostJoined
    >>> supervisor = Supervisor(Settings(standbys=0))
    >>> supervisor.handle(HostJoined(0.0, "node-a", slots=1))
    []
    >>> supervisor.handle(Ticked(0.0))
    [StartWorker(worker='w1', host='node-a')]
    """

    def __init__(self, settings: Settings, policies: Policies | None = None) -> None:
        self._run = Run(settings, policies or Policies.from_settings(settings))
        self._state: State | None = None
        self._learn: dict[type, Callable[[Any], Fact | None]] = {
            HostJoined: self._host_joined,
            HostLost: self._host_lost,
            HostDraining: self._host_draining,
            WorkerReady: self._worker_ready,
            WorkerExited: self._worker_exited,
            WorkerLeaving: self._worker_leaving,
            Progressed: self._progressed,
            Heartbeat: self._heard,
            SnapshotTaken: self._snapshot_taken,
            CheckpointDurable: self._checkpoint_durable,
            DamageFound: self._damage_found,
            Completed: self._completed,
            PeerAccused: self._peer_accused,
            StopRequested: self._stop_requested,
            Ticked: self._ticked,
        }

    @property
    def settings(self) -> Settings:
        """What it was told at the start."""
        return self._run.settings

    @property
    def state(self) -> State | None:
        """What it is about; None before the first event."""
        return self._state

    @property
    def outcome(self) -> Finish | None:
        """How the run ended; None while it goes on."""
        return Finish(self._state.outcome, self._state.reason) if isinstance(self._state, Ended) else None

    @property
    def generation(self) -> int:
        """The newest generation; 0 before the first."""
        return self._run.generation

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts it counts on. Whoever takes over a run reports those that are gone as lost."""
        return tuple(self._run.fleet.hosts)

    @property
    def workers(self) -> dict[str, str]:
        """The workers it counts on, with their hosts. Whoever takes over reports those that have ended."""
        return {worker.name: worker.host for worker in self._run.fleet.workers.values()}

    def may_restore(self, generation: int, step: int) -> bool:
        """Whether a snapshot that some memory holds belongs to the past of the newest generation.

        Whoever goes on after a supervisor that died asks this: workers may have taken it after the last event.
        """
        run = self._run
        # A generation that has not said from where it went on may have given up what older ones did.
        is_clear = generation == run.generation or run.progress.start_step is not None
        return generation <= run.generation and is_clear and run.snapshots.may_restore(generation, step)

    def handle(self, event: Event) -> list[Command]:
        """Takes in one event.

        Args:
            event: the event. One that is older than an earlier one is taken in at the time of the earlier.

        Returns:
            What is to be done now, in this order.
        """
        run = self._run
        if self._state is None:
            run.now = run.watched_from = event.at
            self._state = Gathering(since=event.at, not_before=event.at)
        elif event.at > run.now:
            if event.at - run.now > run.settings.patience.blind_s:
                run.watched_from = event.at
            run.now = event.at
        if isinstance(self._state, Ended):
            return []
        fact = self._learn[type(event)](event)
        if fact is not None:
            self._react(fact)
        if not run.outbox:
            return []
        commands, run.outbox = run.outbox, []
        return commands

    def _react(self, fact: Fact) -> None:
        if not isinstance(self._state, Ended):
            self._state = _STEPS[type(self._state)](self._run, self._state, fact)

    def _host_joined(self, event: HostJoined) -> None:
        self._run.fleet.join(event.host, event.slots, event.at)

    def _host_lost(self, event: HostLost) -> Fact | None:
        host = self._run.fleet.hosts.get(event.host)
        if host is None or event.at < host.joined_at:  # the host has joined anew since
            return None
        leaves = host.leaves_at is not None
        self._run.snapshots.lose(event.host)
        deaths: list[Death] = []
        for worker in self._run.fleet.lose(event.host):
            exited = WorkerExited(event.at, worker.name, event.host, None, None, None)
            deaths.append(replace(death_of(worker, exited, leaves), what="was lost with its host"))
        if not deaths:
            if not host.released:  # it goes because the run has said so
                self._run.announce(f"{event.host} was lost ({event.reason})")
            return None
        return WorkersDied(tuple(deaths), event.host, event.reason)

    def _host_draining(self, event: HostDraining) -> Fact | None:
        is_news = self._run.fleet.drain(event.host, event.at + event.notice_s)
        return HostLeaves(event.host, event.notice_s) if is_news else None

    def _worker_ready(self, event: WorkerReady) -> Fact | None:
        worker = self._run.fleet.workers.get(event.worker)
        if worker is None:
            self._end_stranger(event.worker)
            return None
        worker.heard_at = max(worker.heard_at, event.at)
        self._run.fleet.ready(worker, event.address)
        return StandbyReady() if worker.is_standby else None

    def _end_stranger(self, worker: str) -> None:
        # Either it is dead and its message comes late, or it was counted lost: killing it is right both times.
        self._run.outbox.append(Kill(worker, "the run does not know it"))

    def _worker_exited(self, event: WorkerExited) -> Fact | None:
        worker = self._run.fleet.remove(event.worker)
        if worker is None:
            return None
        host = self._run.fleet.hosts.get(worker.host)
        return WorkersDied((death_of(worker, event, host is not None and host.leaves_at is not None),))

    def _worker_leaving(self, event: WorkerLeaving) -> Fact | None:
        worker = self._run.fleet.workers.get(event.worker)
        if worker is None or worker.leaves:
            return None
        self._run.fleet.leave(worker)
        is_member = event.worker in self._run.fleet.acting
        return MemberLeaves(worker, event.reason, event.notice_s) if is_member else None

    def _progressed(self, event: Progressed) -> None:
        run = self._run
        worker = run.fleet.acting.get(event.worker)
        if worker is None:
            return
        worker.heard_at = max(worker.heard_at, event.at)
        if event.generation != run.generation or event.worker not in run.progress.members:
            return
        progress = run.progress
        started_before = progress.start_step is not None
        progress.report(event.worker, event.at, event.step, event.phase, run.intervals)
        if progress.best_step > run.best_step:
            run.best_step = progress.best_step
        if not started_before and progress.start_step is not None:
            run.snapshots.begin(run.generation, progress.start_step)

    def _heard(self, event: Heartbeat) -> None:
        worker = self._run.fleet.workers.get(event.worker)
        if worker is None:
            self._end_stranger(event.worker)
            return
        if event.at < worker.heard_at:
            return
        worker.heard_at = event.at
        if event.arrived is not None and event.own_s is not None:
            self._run.progress.do_own_part(event.worker, event.arrived, event.own_s)

    def _snapshot_taken(self, event: SnapshotTaken) -> Fact | None:
        host = self._run.fleet.hosts.get(event.host)
        if host is None or event.at < host.joined_at or event.generation > self._run.generation:
            return None
        self._run.snapshots.take(event.host, event.generation, event.step)
        return BoundaryReached() if event.generation == self._run.generation else None

    def _checkpoint_durable(self, event: CheckpointDurable) -> None:
        if event.generation <= self._run.generation:
            self._run.snapshots.save(event.generation, event.step)

    def _damage_found(self, event: DamageFound) -> Fact | None:
        acting = self._run.fleet.acting
        # All who agree say so, and the first of them is enough.
        if event.generation != self._run.generation or event.worker not in acting:
            return None
        suspects = tuple(acting[name] for name in event.suspects if name in acting and acting[name].doomed_at is None)
        return MembersSuspected(suspects, event.step, event.is_proven, event.what) if suspects else None

    def _completed(self, event: Completed) -> Fact | None:
        run = self._run
        if event.generation != run.generation or event.worker not in run.progress.members:
            return None
        return MemberCompleted(event.worker, event.step)

    def _peer_accused(self, event: PeerAccused) -> Fact | None:
        run = self._run
        accuser, accused = run.fleet.acting.get(event.worker), run.fleet.acting.get(event.accused)
        # What was said in an older generation has been answered by the newer one.
        if event.generation != run.generation or accuser is None or accused is None or accuser is accused:
            return None
        is_heard = accuser.doomed_at is None and accused.doomed_at is None
        return MemberAccused(accuser, accused, event.what) if is_heard else None

    def _stop_requested(self, event: StopRequested) -> None:
        if not isinstance(self._state, Stopping):
            self._state = stopping.stop(self._run, event.reason)

    def _ticked(self, event: Ticked) -> Fact:
        for death in self._run.look_at_deadlines():
            self._react(WorkersDied((death,)))
        return TimePassed()
