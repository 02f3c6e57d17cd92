"""One simulated run: the real supervisor, simulated machines, and a network and a runtime between them."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cluster.simulation.faults import Faults
from cluster.simulation.machines import Machines, SimulatedHost
from cluster.simulation.scenario import Scenario
from cluster.simulation.virtual_time import VirtualTime
from cluster.supervisor.commands import Announce, Command, Finish, ReleaseHost, StartWorker
from cluster.supervisor.events import Event, HostDraining, HostJoined, HostLost, SnapshotTaken, StopRequested, Ticked
from cluster.supervisor.journal_replay import started_record, take_over
from cluster.supervisor.records import to_record
from cluster.supervisor.states import Waiting
from cluster.supervisor.supervisor import Supervisor

_TICK_S = 1.0
# A host that is cut off ends its workers after this time, and is reported lost when it has surely done so.
_LEASE_S = 6.0
_LEASE_MARGIN_S = 1.0
# No scenario takes as long, unless it is stuck.
_LONGEST_S = 3000.0

Observer = Callable[[Event, list[Command]], None]


class Simulation:
    """A run of the supervisor through a scenario.

    Args:
        scenario: what happens.

    Attributes:
        supervisor: the supervisor; another one after it died.
        machines: the hosts and workers.
        journal: the events and the commands they led to, in order.
        observers: called after each event that the supervisor took in.
        deaths: how often the supervisor died.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.time = VirtualTime()
        self.rng = random.Random(scenario.seed + 1)
        self.supervisor = Supervisor(scenario.settings)
        self.machines = Machines(self.time, self.rng, scenario.training, self._send_event)
        self.machines.on_released = self.release
        self.machines.replaceable_from = scenario.settings.replaceable_from
        self.machines.forms_anew = scenario.settings.reform
        self.machines.user_error_at, self.machines.user_error_left = scenario.user_error_at, scenario.user_errors
        self.journal: list[tuple[Event, list[Command]]] = []
        self.observers: list[Observer] = []
        self.deaths = 0
        self._is_up = True
        self._unread: list[tuple[Event, SimulatedHost | None]] | None = None
        self._worker_hosts: dict[str, SimulatedHost] = {}
        # An order goes to the agent that the supervisor has heard of, not to a later one of the same name.
        self._reached: dict[str, SimulatedHost] = {}
        self._known_hosts: dict[str, int] = {}
        self._incarnations: dict[str, int] = {}
        self._planned_joins = 0
        for slots in scenario.slots:
            self.time.after(0.0, self.add_host, slots)
        self.time.after(0.0, self._tick)
        faults = Faults(self)
        for at, fault in scenario.faults:
            self.time.after(at, faults.strike, fault)
        if scenario.stop_at is not None:
            self.time.after(scenario.stop_at, self._ask_to_stop)

    def run(self) -> None:
        """Runs to the end.

        Raises:
            RuntimeError: the run is stuck.
        """
        while self.supervisor.outcome is None and not self._waits_rightly():
            if self.time.now > _LONGEST_S or not self.time.step():
                raise RuntimeError(f"stuck at {self.time.now:.0f} s in {self.supervisor.state}")

    # Hosts, as the runtime sees them.

    def add_host(self, slots: int) -> SimulatedHost:
        """A new host offers room at once."""
        host = SimulatedHost(f"h{len(self.machines.hosts) + 1}", slots)
        self.machines.hosts[host.name] = host
        self._announce_host(host)
        return host

    def crash(self, host: SimulatedHost, returns_after_s: float | None, keeps_memory: bool = False) -> None:
        """A machine ends, or its agent. The runtime finds out, and then it may come back."""
        if host.alive:
            kept = host.snapshot if keeps_memory else None
            self.machines.end_host(host)
            delay_s = self.rng.uniform(0.2, 3.0)
            self.time.after(delay_s, self._report_lost, host, self._incarnations[host.name], "it does not answer")
            if returns_after_s is not None:
                self._planned_joins += 1
                self.time.after(delay_s + returns_after_s, self._return, host, kept)

    def release(self, host: SimulatedHost) -> None:
        """A host is given back: the machine ends."""
        self.crash(host, returns_after_s=None)

    def drain(self, host: SimulatedHost, notice_s: float, returns_after_s: float | None) -> None:
        """A host is given notice, and goes at its end."""
        self.hand(HostDraining(self.time.now, host.name, notice_s))
        self.time.after(notice_s, self.crash, host, returns_after_s)

    def cut_off(self, host: SimulatedHost, seconds: float) -> None:
        """No message passes for a time. When it lasts, the agent ends its workers, and the host counts as lost."""
        if host.alive and not host.cut_off:
            host.cut_off = True
            incarnation = self._incarnations[host.name]
            self.time.after(seconds, self._heal, host, incarnation)
            self.time.after(_LEASE_S, self._lease_over, host, incarnation)

    def kill_supervisor(self, seconds: float) -> None:
        """The supervisor dies and is started again after a time. What it is told meanwhile is lost."""
        if self._is_up and self.journal:
            self._is_up, self._unread = False, None
            self.deaths += 1
            self.time.after(seconds, self._take_over)

    def freeze_supervisor(self, seconds: float) -> None:
        """The supervisor's process stands still. What it is told meanwhile it reads all at once afterwards."""
        if self._is_up and self._unread is None:
            self._unread = []
            self.time.after(seconds, self._thaw_supervisor)

    def _thaw_supervisor(self) -> None:
        unread, self._unread = self._unread or [], None
        for event, joined in unread:
            self.hand(replace(event, at=self.time.now), joined)

    def _announce_host(self, host: SimulatedHost) -> None:
        self._incarnations[host.name] = self._incarnations.get(host.name, 0) + 1
        if self._is_up:
            self._join(host)

    def _join(self, host: SimulatedHost) -> None:
        self._known_hosts[host.name] = self._incarnations[host.name]
        self.hand(HostJoined(self.time.now, host.name, host.slots), host)
        if host.snapshot is not None:
            self._send_event(host, SnapshotTaken(self.time.now, host.name, *host.snapshot))

    def _return(self, host: SimulatedHost, kept: tuple[int, int] | None) -> None:
        self._planned_joins -= 1
        if self.machines.hosts[host.name].alive:
            return
        again = SimulatedHost(host.name, host.slots, snapshot=kept)
        again.workers = host.workers  # names are never used twice: the new agent must not start them again
        self.machines.hosts[host.name] = again
        self._announce_host(again)

    def _report_lost(self, host: SimulatedHost, incarnation: int, reason: str) -> None:
        if self._is_up and self._known_hosts.get(host.name) == incarnation:
            del self._known_hosts[host.name]
            self.hand(HostLost(self.time.now, host.name, reason))

    def _lease_over(self, host: SimulatedHost, incarnation: int) -> None:
        if host.cut_off and host.alive and self._incarnations[host.name] == incarnation:
            host.alive = False
            self.machines.end_host(host)
            self.time.after(_LEASE_MARGIN_S, self._report_lost, host, incarnation, "its agent is cut off")

    def _heal(self, host: SimulatedHost, incarnation: int) -> None:
        if self._incarnations[host.name] != incarnation:
            return
        host.cut_off = False
        if not host.alive:
            self._planned_joins += 1
            self.time.after(_LEASE_MARGIN_S + 4.0, self._return, host, None)

    # Messages.

    def hand(self, event: Event, joined: SimulatedHost | None = None) -> None:
        """The supervisor takes in an event, that of a host which has joined with that host; its commands go out."""
        if not self._is_up or self.supervisor.outcome is not None:
            return
        if self._unread is not None:
            self._unread.append((event, joined))
            return
        if joined is not None:
            self._reached[joined.name] = joined
        commands = self.supervisor.handle(event)
        self.journal.append((event, commands))
        for command in commands:
            self._send_command(command)
        for observe in self.observers:
            observe(event, commands)

    def _send_event(self, host: SimulatedHost, event: Event) -> None:
        if not host.cut_off and not self._is_lost():
            for _ in range(self._times()):
                self.time.after(self._delay_s(), self._arrive, host, event)

    def _arrive(self, host: SimulatedHost, event: Event) -> None:
        if not host.cut_off:
            self.hand(event)

    def _send_command(self, command: Command) -> None:
        if isinstance(command, Announce | Finish):
            return
        if isinstance(command, ReleaseHost):
            if host := self.machines.hosts.get(command.host):
                self.time.after(self._delay_s(), self.release, host)
            return
        if isinstance(command, StartWorker):
            self._worker_hosts[command.worker] = self._reached[command.host]
        host = self._worker_hosts[command.worker]
        if not host.cut_off and not self._is_lost():
            for _ in range(self._times()):
                self.time.after(self._delay_s(), self.machines.carry_out, host, command)

    def _happens(self, share: float) -> bool:
        return share > 0 and self.time.now < self.scenario.calm_at and self.rng.random() < share

    def _is_lost(self) -> bool:
        return self._happens(self.scenario.loss)

    def _times(self) -> int:
        return 2 if self._happens(self.scenario.twice) else 1

    def _delay_s(self) -> float:
        if self._happens(self.scenario.late):
            return self.rng.uniform(0.5, 4.0)
        return self.rng.uniform(0.001, 0.02)

    # The runtime.

    def _tick(self) -> None:
        self.hand(Ticked(self.time.now))
        self.time.after(_TICK_S, self._tick)

    def _ask_to_stop(self) -> None:
        if self._is_up:
            self.hand(StopRequested(self.time.now, "the user stopped it"))
        else:
            self.time.after(1.0, self._ask_to_stop)

    def records(self) -> list[dict[str, Any]]:
        """The journal as records."""
        records = [started_record(self.scenario.settings, continued=False)]
        for event, commands in self.journal:
            records.append(to_record(event))
            records.extend(to_record(command) for command in commands)
        return records

    def _take_over(self) -> None:
        """Another supervisor reads the journal; its predecessor may have died before it recorded all commands."""
        records = self.records()
        unwritten = self.rng.randint(0, len(self.journal[-1][1]))
        takeover = take_over(records[: len(records) - unwritten])
        assert [to_record(command) for command in takeover.unrecorded] == records[len(records) - unwritten :]
        self.supervisor, self._is_up = takeover.supervisor, True
        for command in takeover.unrecorded:
            self._send_command(command)
        for name in self.supervisor.hosts:
            if not self.machines.hosts[name].alive or self._known_hosts.get(name) != self._incarnations[name]:
                self._known_hosts.pop(name, None)
                self.hand(HostLost(self.time.now, name, "it was gone when the supervisor came back"))
        for host in self.machines.hosts.values():
            if host.alive and (host.name not in self._known_hosts or host.name not in self.supervisor.hosts):
                self._join(host)

    def _waits_rightly(self) -> bool:
        """Whether the run waits for resources that do not exist and never will."""
        if not isinstance(self.supervisor.state, Waiting) or not self._is_up or self._planned_joins:
            return False
        if self.scenario.settings.patience.resources_s is not None or self.time.now < self.scenario.calm_at:
            return False
        alive = [host for host in self.machines.hosts.values() if host.alive]
        room = sum(host.slots for host in alive)
        return self.scenario.settings.sizes.largest_within(room) is None and not any(host.cut_off for host in alive)
