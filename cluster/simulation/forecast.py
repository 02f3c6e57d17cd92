"""How a training would go on a fleet: the real supervisor, failures drawn from their statistics, coarse workers."""

import gc
import random
import time as real_time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.simulation.fleet import CoarseFleet, Ledger
from cluster.simulation.virtual_time import VirtualTime
from cluster.simulation.workload import Workload
from cluster.supervisor.commands import Finish
from cluster.supervisor.events import Event, HostDraining, HostJoined, HostLost, Ticked
from cluster.supervisor.fleet import Worker
from cluster.supervisor.generation_progress import GenerationProgress
from cluster.supervisor.hang_policy import Hang
from cluster.supervisor.policies import Policies
from cluster.supervisor.settings import Budgets, Settings, Sizes
from cluster.supervisor.states import Gathering, Running
from cluster.supervisor.supervisor import Supervisor

_HOUR_S = 3600.0
_MOMENT_S = 0.05


class _NobodyHangs:
    """Heartbeats are left out of a forecast, so that silence means nothing in it."""

    def find(
        self,
        progress: GenerationProgress,
        heard_at: Mapping[str, float],
        now: float,
        median_s: float | None,
        watched_from: float,
    ) -> Hang | None:
        return None

    def find_silent(self, workers: Iterable[Worker], now: float, watched_from: float) -> list[Hang]:
        return []


@dataclass(frozen=True)
class Forecast:
    """What was found.

    Attributes:
        workload: what it is about.
        ledger: where the time went.
        seconds: that were looked at; less than asked for when the run ended.
        steps: completed at the end.
        losses, preemptions: of hosts.
        ended: how the run ended; None when it goes on.
        events: that the supervisor handled.
        supervisor_s: seconds that it took for them on this machine, on one core.
        longest_event_s: seconds that the costliest took.
    """

    workload: Workload
    ledger: Ledger
    seconds: float
    steps: int
    losses: int
    preemptions: int
    ended: Finish | None
    events: int
    supervisor_s: float
    longest_event_s: float

    @property
    def goodput(self) -> float:
        """The share of the time that went into steps which count, at the speed of all hosts."""
        return self.steps * self.workload.step_s / self.seconds if self.seconds else 0.0


def settings_of(workload: Workload) -> Settings:
    """The supervisor's settings for a workload; what it does not name is as in a run."""
    least = workload.hosts if workload.min_hosts is None else workload.min_hosts
    return Settings(
        sizes=Sizes(min=least * workload.workers_per_host, max=workload.workers),
        budgets=Budgets(failures=workload.max_failures),
        standbys=workload.num_standbys,
        reform=workload.reform,
    )


def forecast(workload: Workload) -> Forecast:
    """Runs a workload through its hours."""
    # Hundreds of thousands of objects live on, and hardly any belongs to a cycle: looking for cycles among them would
    # take a third of the time, and would count as the supervisor's.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _Run(workload).to_the_end()
    finally:
        if was_enabled:
            gc.enable()


class _Run:
    def __init__(self, workload: Workload) -> None:
        self._workload, self._time = workload, VirtualTime()
        self._rng = random.Random(workload.seed)
        settings = settings_of(workload)
        ours = Policies.from_settings(settings)
        self._supervisor = Supervisor(settings, Policies(ours.failures, ours.scaling, ours.hosts, _NobodyHangs()))
        self._fleet = CoarseFleet(workload, self._time, self._rng, self._hand, self._release)
        self._losses = self._preemptions = self._events = 0
        self._supervisor_s = self._longest_s = 0.0
        self._is_over = False
        self._ticks: set[float] = set()
        self._is_elastic = settings.sizes.min < settings.sizes.max
        for number in range(workload.hosts + workload.spare_hosts):
            self._join(f"h{number}")
        self._plan_loss()
        self._plan_wave()

    def to_the_end(self) -> Forecast:
        end = self._workload.hours * _HOUR_S
        while self._supervisor.outcome is None and self._time.next_at is not None and self._time.next_at <= end:
            self._time.step()
        ended = self._supervisor.outcome
        if ended is None:
            self._time.now = end
        self._fleet.close()
        return Forecast(
            workload=self._workload,
            ledger=self._fleet.ledger,
            seconds=self._time.now,
            steps=self._fleet.best_step,
            losses=self._losses,
            preemptions=self._preemptions,
            ended=ended,
            events=self._events,
            supervisor_s=self._supervisor_s,
            longest_event_s=self._longest_s,
        )

    def _hand(self, event: Event) -> None:
        if self._is_over:
            return
        began = real_time.perf_counter()
        commands = self._supervisor.handle(event)
        took_s = real_time.perf_counter() - began
        self._events += 1
        self._supervisor_s += took_s
        if took_s > self._longest_s:
            self._longest_s = took_s
        if commands:
            self._is_over = self._supervisor.outcome is not None
            self._fleet.carry_out(commands)
            self._plan_ticks()

    # The clock is told when it matters: no process hangs here, so that the other deadlines never pass.

    def _plan_ticks(self) -> None:
        state, sizes = self._supervisor.state, self._supervisor.settings.sizes
        if isinstance(state, Gathering):
            patience_s = sizes.gather_s if self._supervisor.generation == 0 else sizes.replace_within_s
            for at in (state.not_before, state.since + patience_s):
                self._tick_at(at + _MOMENT_S)
        elif isinstance(state, Running) and len(state.members) < sizes.max:
            self._tick_at(state.since + sizes.keep_s + _MOMENT_S)
            self._tick_at(state.since + sizes.keep_s + sizes.grow_within_s + 2 * _MOMENT_S)

    def _tick_at(self, at: float) -> None:
        if at > self._time.now and at not in self._ticks:
            self._ticks.add(at)
            self._time.after(at - self._time.now, self._tick, at)

    def _tick(self, at: float) -> None:
        self._ticks.discard(at)
        if self._is_elastic:  # a generation grows when it has just taken a snapshot
            self._fleet.report_stretch()
        self._hand(Ticked(self._time.now))
        self._plan_ticks()

    # What befalls the hosts.

    def _join(self, host: str) -> None:
        self._fleet.join(host)
        self._hand(HostJoined(self._time.now, host, self._workload.workers_per_host))
        # A moment later, so that hosts which come together share the workers.
        self._tick_at(self._time.now + _MOMENT_S)
        if self._time.now > 0 and self._is_elastic:
            sizes = self._supervisor.settings.sizes
            self._tick_at(self._time.now + 2 * self._workload.start_s + sizes.keep_s + sizes.grow_within_s)

    def _plan_loss(self) -> None:
        rate = max(1, len(self._fleet.alive)) / (self._workload.mtbf_h * _HOUR_S)
        self._time.after(self._rng.expovariate(rate), self._lose_one)

    def _lose_one(self) -> None:
        if self._fleet.alive:
            self._losses += 1
            self._end_host(self._rng.choice(list(self._fleet.alive)), self._workload.detect_s, "it does not answer")
        self._plan_loss()

    def _end_host(self, host: str, known_after_s: float, reason: str) -> None:
        if host in self._fleet.alive:
            self._fleet.end_host(host)
            self._time.after(known_after_s, self._tell_lost, host, reason)

    def _tell_lost(self, host: str, reason: str) -> None:
        self._fleet.note_known()
        # What was done until then counts for the budgets.
        self._hand(Ticked(self._time.now))
        self._hand(HostLost(self._time.now, host, reason))
        self._tick_at(self._time.now + _MOMENT_S)
        self._time.after(self._workload.restart_s, self._join, host)

    def _release(self, host: str) -> None:
        self._time.after(0.0, self._end_host, host, 0.0, "it was given back")

    def _plan_wave(self) -> None:
        if self._workload.wave_every_h is not None:
            self._time.after(self._rng.expovariate(1 / (self._workload.wave_every_h * _HOUR_S)), self._wave)

    def _wave(self) -> None:
        self._fleet.report_stretch()
        for host in [host for host in self._fleet.alive if self._rng.random() < self._workload.wave_share]:
            self._preemptions += 1
            self._hand(HostDraining(self._time.now, host, self._workload.notice_s))
            self._time.after(self._workload.notice_s, self._end_host, host, 0.0, "its notice is over")
        self._tick_at(self._time.now + _MOMENT_S)
        # By then members must have saved and left, replaced or not.
        drain_s = self._supervisor.settings.patience.drain_s
        for before_end_s in (drain_s - _MOMENT_S, drain_s / 2):
            self._tick_at(self._time.now + max(0.0, self._workload.notice_s - before_end_s))
        self._plan_wave()
