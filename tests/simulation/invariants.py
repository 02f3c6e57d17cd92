"""What must hold in every simulated run, computed from what was said and done, not from the supervisor's own books."""

from cluster.assignment import Member
from cluster.simulation.machines import Group
from cluster.simulation.simulation import Simulation
from cluster.supervisor.commands import Announce, Command, Finish, Form, Kill, ReleaseHost, StartWorker, Stop
from cluster.supervisor.events import (
    CheckpointDurable,
    Event,
    HostDraining,
    HostJoined,
    HostLost,
    PeerAccused,
    Progressed,
    SnapshotTaken,
    WorkerExited,
)
from cluster.supervisor.journal_replay import first_difference
from cluster.supervisor.states import Ended, Running
from cluster.supervisor.supervisor import Supervisor


class Invariants:
    """Watches a simulation, and raises AssertionError at the first event that breaks an invariant."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._settings = simulation.scenario.settings
        self._formed: dict[str, int] = {}  # worker to its newest generation
        self._sizes: list[int] = []
        self._newest_round = 0
        self._reported = 0
        self._hosts: dict[str, bool] = {}  # host to whether it stays
        self._joined_at: dict[str, float] = {}
        self._held: dict[str, tuple[int, int]] = {}  # host to (generation, step) of the newest snapshot told of
        self._starts: dict[int, int] = {}  # generation to the step it went on from, as far as it was told
        self._restored_from: tuple[int, str] | None = None
        self._tried: set[tuple[int, str]] = set()
        self._worst_failures = 0
        self._durable: list[tuple[int, int]] = []  # (generation, step) of the checkpoints told of
        self._members: list[Member] = []  # of the newest generation
        self.replacements = 0
        self._ordered_to_end: set[str] = set()
        self._now = 0.0  # of the newest event: late ones are taken in at its time
        self._ran = False  # whether a generation ran before the event
        self._believed: dict[str, float] = {}  # worker to when another was last killed on its word
        simulation.observers.append(self._after_event)
        simulation.machines.on_round = self._on_round

    def at_the_end(self) -> None:
        """What must hold when the run is over, or waits for resources that do not exist."""
        outcome, machines = self._simulation.supervisor.outcome, self._simulation.machines
        if outcome is not None:
            assert outcome.reason, "the run ended without a reason"
            # Whom a supervisor cannot reach to the last, it has given back with the host, which ends it.
            alive = [worker.name for worker in machines.workers.values() if worker.alive and not worker.unkillable]
            assert not alive or any(host.cut_off for host in machines.hosts.values()), f"{alive} outlive the run"
            if outcome.outcome == "finished":
                assert machines.is_complete, "the run was called finished before the training was complete"
            if outcome.outcome == "stopped":
                assert self._simulation.scenario.stop_at is not None, "nobody stopped the run"
        self._check_budgets()
        self._check_replay()

    def _after_event(self, event: Event, commands: list[Command]) -> None:
        self._note(event)
        self._now = max(self._now, event.at)
        if isinstance(event, PeerAccused):
            self._check_accusation(event, {command.worker for command in commands if isinstance(command, Kill)})
        self._ran = isinstance(self._simulation.supervisor.state, Running)
        self._ordered_to_end |= {command.worker for command in commands if isinstance(command, Kill | Stop)}
        for command in commands:
            if isinstance(command, ReleaseHost):
                self._hosts[command.host] = False
        forms = [command for command in commands if isinstance(command, Form)]
        for form in forms:
            if form.assignment.generation == len(self._sizes):
                self._check_replacement(form)
        forms = [form for form in forms if form.assignment.generation > len(self._sizes)]
        if forms:
            self._check_generation(forms)
        assert not isinstance(event, Finish)
        ends = [command for command in commands if isinstance(command, Finish)]
        assert len(ends) <= 1 and (not ends or commands[-1] is ends[0]), "something follows the end of the run"
        assert all(command.text for command in commands if isinstance(command, Announce))
        started = [command.worker for command in commands if isinstance(command, StartWorker)]
        assert not set(started) & self._formed.keys(), "a worker's name is used twice"
        if isinstance(self._simulation.supervisor.state, Ended):
            assert not any(isinstance(command, StartWorker | Form | Kill) for command in commands[-1:])
        if isinstance(event, HostLost | HostDraining) or forms:
            failures = self._simulation.supervisor._run.policies.failures
            self._worst_failures = max(self._worst_failures, failures.failures)

    def _note(self, event: Event) -> None:
        match event:
            case HostJoined():
                self._hosts[event.host], self._joined_at[event.host] = True, event.at
            case HostDraining():
                self._hosts[event.host] = False
            case HostLost():
                self._hosts.pop(event.host, None)
                self._held.pop(event.host, None)
            case SnapshotTaken() if event.host in self._hosts and event.at >= self._joined_at[event.host]:
                self._reported = max(self._reported, event.step)
                if not self._is_ancestor(event.generation, event.step):
                    return
                held = self._held.get(event.host, (0, 0))
                self._held[event.host] = max(held, (event.generation, event.step))
            case CheckpointDurable():
                self._durable.append((event.generation, event.step))
            case Progressed():
                self._reported = max(self._reported, event.step)
                if event.phase != "restore" and event.generation == max(self._formed.values(), default=0):
                    self._starts.setdefault(event.generation, event.step)

    def _check_accusation(self, event: PeerAccused, killed: set[str]) -> None:
        """One of the two is replaced; whoever has been believed is soon after the suspect itself."""
        members = {member.worker for member in self._members}
        exits = {before.worker for before, _ in self._simulation.journal[:-1] if isinstance(before, WorkerExited)}
        there = members - exits - self._ordered_to_end
        if not self._ran or event.generation != len(self._sizes) or not {event.worker, event.accused} <= there:
            return
        if {event.worker, event.accused} <= killed:
            return  # the run ends, or the next generation has no place for the other one
        if event.accused in killed:
            since = self._believed.get(event.worker, float("-inf"))
            assert self._now - since >= self._settings.budgets.give_back_after_s, f"{event.worker} was believed again"
            self._believed[event.worker] = self._now
        else:
            assert event.worker in killed, f"nobody pays for the wrong data that {event.worker} heard"
            assert event.worker in self._believed, f"{event.worker} is suspected at its first word"

    def _check_generation(self, forms: list[Form]) -> None:
        generation = forms[0].assignment.generation
        members = forms[0].assignment.members
        size = len(members)
        assert generation == len(self._sizes) + 1, "a generation's number was left out"
        assert [form.assignment.rank for form in forms] == list(range(size))
        assert [form.worker for form in forms] == [member.worker for member in members]
        assert all(form.assignment.members == members for form in forms)
        assert len({member.worker for member in members}) == size
        sizes = self._settings.sizes
        survive = self._settings.reform and any(member.worker in self._formed for member in members)
        fewest = sizes.fewest_survivors if survive and sizes.fewest_survivors else sizes.min
        if not all(member.worker in self._ordered_to_end for member in members):  # those only save what they have
            divides = sizes.divides is None or sizes.divides % size == 0
            assert fewest <= size <= sizes.max and divides, f"{size} members"
        for host in {member.host for member in members}:
            carried = sum(member.host == host for member in members)
            goes_on = [member.worker in self._formed for member in members if member.host == host]
            may = self._hosts.get(host) or (host in self._hosts and self._settings.reform and all(goes_on))
            assert may, f"{host} is gone or leaves, and has {carried} members"
            assert carried <= self._simulation.machines.hosts[host].slots
        if not self._settings.reform:
            self._check_that_older_generations_are_dead()
        self._check_restore(forms[0], generation)
        self._sizes.append(size)
        for member in members:
            self._formed[member.worker] = generation
        self._members = list(members)

    def _check_replacement(self, form: Form) -> None:
        """One member takes the place of a dead one, in the generation that goes on."""
        assignment, first = form.assignment, self._settings.replaceable_from
        assert first is not None and assignment.rank >= first, f"rank {assignment.rank} cannot be replaced"
        old, new = self._members[assignment.rank], assignment.itself
        assert not self._simulation.machines.workers[old.worker].alive, f"{old.worker} lives and is replaced"
        assert (new.host, new.address) == (old.host, old.address), "nobody looks for it there"
        assert new.worker == form.worker and new.worker not in self._formed, f"{form.worker} has another place"
        assert self._hosts.get(new.host), f"{new.host} is gone or leaves"
        assert assignment.restore is None
        self._members[assignment.rank] = new
        assert list(assignment.members) == self._members, "the others are not who they were"
        self._formed[new.worker] = assignment.generation
        self.replacements += 1

    def _check_that_older_generations_are_dead(self) -> None:
        workers = self._simulation.machines.workers
        alive = [name for name in self._formed if name in workers and workers[name].alive]
        assert not alive, f"{alive} of an older generation live while a new one is formed"

    def _check_restore(self, form: Form, generation: int) -> None:
        place = form.assignment.restore
        eligible = [
            (step, host)
            for host, (taken_by, step) in self._held.items()
            if self._hosts.get(host) and self._is_ancestor(taken_by, step)
        ]
        if place is None:
            # A supervisor cannot know what a disk has lost that it had acknowledged.
            saved = max(self._simulation.machines.checkpoint_step, self._newest(self._simulation.machines.acknowledged))
            better = [one for one in eligible if one[0] > saved and one not in self._tried]
            assert not better, f"the checkpoint of step {saved} was restored though {better} is newer"
            return
        assert place.step <= self._reported, f"step {place.step} was never reported"
        assert (place.step, place.host) in eligible, f"{place} is gone, leaves, or belongs to an abandoned past"
        assert place.step >= self._newest(self._durable), f"{place} was restored though a checkpoint is newer"
        better = [one for one in eligible if one[0] > place.step and one not in self._tried]
        assert not better, f"{place} was restored though {better} is newer"
        self._tried.add((place.step, place.host))
        old = any(member.worker in self._formed for member in form.assignment.members)
        if not old:
            self._starts[generation] = place.step

    def _newest(self, saved: list[tuple[int, int]]) -> int:
        return max((step for saved_by, step in saved if self._is_ancestor(saved_by, step)), default=0)

    def _is_ancestor(self, taken_by: int, step: int) -> bool:
        return all(start >= step for generation, start in self._starts.items() if generation > taken_by)

    def _on_round(self, group: Group) -> None:
        generation = group.assignment.generation
        assert generation >= self._newest_round, f"generation {generation} acts after {self._newest_round}"
        self._newest_round = generation

    def _check_budgets(self) -> None:
        budgets = self._settings.budgets
        if budgets.give_back_after_s < self._simulation.time.now:
            return
        allowed = 1 + sum(limit or 0 for limit in (budgets.failures, budgets.preemptions, budgets.resizes))
        # A generation that is broken while it hands over has been paid for already.
        assert len(self._sizes) <= allowed, f"{len(self._sizes)} generations with a budget for {allowed}"

    def _check_replay(self) -> None:
        again = Supervisor(self._settings)
        for event, commands in self._simulation.journal:
            assert again.handle(event) == commands, f"a replay decides otherwise after {event}"
        if self._simulation.scenario.seed % 20 == 0:
            assert first_difference(self._simulation.records()) is None
