"""All that the supervisor knows of its run, and the commands that it is about to give."""

from collections.abc import Sequence

from cluster.assignment import Assignment, Member, SnapshotPlace
from cluster.supervisor.commands import Announce, Command, DumpStacks, Form, Kill, ReleaseHost, StartWorker, Stop
from cluster.supervisor.facts import Death
from cluster.supervisor.fleet import Fleet, Host, Worker
from cluster.supervisor.generation_progress import GenerationProgress, StepIntervals
from cluster.supervisor.placement import capacity, plan_workers
from cluster.supervisor.policies import Policies
from cluster.supervisor.settings import Settings
from cluster.supervisor.snapshots import SnapshotBook


class Run:
    """The books of one run, shared by all states.

    Attributes:
        settings, policies: what was injected.
        fleet, snapshots, intervals: see there.
        progress: of the newest generation.
        generation: its number; before the first, that of an earlier launch, or 0.
        goal_size: how many members the next one ought to have; None before the first.
        best_step: the highest step that was ever reported; -1 before the first report.
        now: the time of the newest event.
        watched_from: nobody listened for a while before this time, so that nobody can be blamed for silence.
        outbox: the commands of the event in work.
    """

    def __init__(self, settings: Settings, policies: Policies) -> None:
        self.settings, self.policies = settings, policies
        self.fleet, self.snapshots, self.intervals = Fleet(), SnapshotBook(), StepIntervals()
        self.progress = GenerationProgress((), 0.0)
        self.generation = settings.last_generation
        self.goal_size: int | None = None
        self.best_step = -1
        self.now = self.watched_from = 0.0
        self.outbox: list[Command] = []

    def announce(self, text: str) -> None:
        """Tells the person one sentence."""
        self.outbox.append(Announce(text))

    def kill(self, worker: Worker, reason: str) -> None:
        """Has a worker ended at once, unless it already is."""
        if worker.doomed_at is None:
            self.fleet.doom(worker, reason, self.now)
            self.outbox.append(Kill(worker.name, reason))

    def stop(self, worker: Worker, reason: str, by: float) -> None:
        """Asks a member to save its state and to end; it is killed when it has not by then."""
        if worker.stays:
            worker.stop_by = by
            self.outbox.append(Stop(worker.name, reason))

    def dump_stacks(self) -> None:
        """Has all members write their stacks to their logs."""
        self.outbox.extend(DumpStacks(worker) for worker in self.fleet.acting)

    def form(self, workers: Sequence[Worker], restore: SnapshotPlace | None) -> tuple[Member, ...]:
        """Makes these the newest generation, by rank, and tells them.

        Args:
            workers: its members to be.
            restore: what they go on from where none of them has a state.
        """
        self.generation += 1
        self.fleet.act(list(workers), self.now)
        self.progress = GenerationProgress(self.fleet.acting, self.now)
        members = tuple(Member(one.name, one.host, rank, one.address or "") for rank, one in enumerate(workers))
        self.outbox.extend(
            Form(member.worker, Assignment(self.generation, member.rank, members, restore)) for member in members
        )
        return members

    def usable_hosts(self) -> list[Host]:
        """The hosts whose workers may become members, in the order of joining."""
        stay = [host for host in self.fleet.hosts.values() if host.leaves_at is None and not host.released]
        policy = self.policies.hosts
        return [host for host in stay if not policy.is_aside(host.name)] if policy.num_aside else stay

    def hosts_to_form_on(self) -> list[Host]:
        """Those, and where members survive only on hosts that are set aside or leave, these as well.

        They hold a state that no other has: they go on with it until others can take over.
        """
        hosts = self.usable_hosts()
        if self.settings.reform:
            names = {host.name for host in hosts}
            holding = {worker.host for worker in self.fleet.acting.values() if worker.remains}
            if names.isdisjoint(holding):
                known = self.fleet.hosts.values()
                hosts = [one for one in known if one.name in names or (one.name in holding and not one.released)]
        return hosts

    def newest_snapshot(self) -> SnapshotPlace | None:
        """The snapshot to go on from: the newest on a host that stays; None: the newest checkpoint."""
        return self.snapshots.newest(
            host.name for host in self.fleet.hosts.values() if host.leaves_at is None and not host.released
        )

    def plan(self) -> int:
        """Starts the workers that are missing and ends those that are too many.

        Returns:
            How many members the usable hosts can carry.
        """
        for host in self.policies.hosts.come_back(self.now):
            self.announce(f"{host} was set aside long enough and is used again")
        hosts = self.usable_hosts()
        if not self.policies.scaling.suffices(capacity(hosts)):
            for host in self.policies.hosts.recall():
                self.announce(f"{host} was set aside and is used again, because the run cannot do without it")
            hosts = self.usable_hosts()
        usable = {host.name for host in hosts}
        for host in self.fleet.hosts.values():
            if host.name not in usable:
                for worker in host.workers.values():
                    if worker.formed_at is None:
                        self.kill(worker, "its host is not used")
        plan = plan_workers(
            hosts,
            self.policies.scaling.wanted(capacity(hosts)),
            self.settings.standbys,
            lambda host: self.policies.hosts.may_start(host, self.now),
            self._may_spare(),
        )
        for host in plan.starts:
            self.outbox.append(StartWorker(self.fleet.start(host, self.now).name, host))
        for worker in plan.surplus:
            self.kill(worker, "it is not needed")
        return capacity(hosts)

    def _may_spare(self) -> bool:
        """Whether standbys may be started that nobody waits for: they take the processors from those that form."""
        wait_s = self.settings.patience.spare_s
        if not wait_s:
            return True
        acting = (worker for worker in self.fleet.acting.values() if worker.stays)
        formed_at = [worker.formed_at for worker in acting if worker.formed_at is not None]
        return bool(formed_at) and (self.progress.stepped or self.now - max(formed_at) >= wait_s)

    def set_aside(self, host: str, why: str = "failed repeatedly", is_certain: bool = False) -> bool:
        """Sets a host aside, if the run can do without it.

        Args:
            host: its name.
            why: what it did, for the person.
            is_certain: whether it is the host, and not chance that struck it.

        Returns:
            Whether that is so.
        """
        if self.policies.hosts.is_aside(host):
            return True
        others = [one for one in self.usable_hosts() if one.name != host]
        if not self.policies.scaling.suffices(capacity(others)):
            return False
        # Where members go on with what is in their memory, a second host is worth more than a good one.
        if self.settings.reform and len(others) < 2 and not is_certain:
            return False
        seconds = self.policies.hosts.set_aside(host, self.now)
        self.announce(f"{host} {why} and is set aside for {seconds:.0f} s")
        return True

    def look_at_deadlines(self) -> list[Death]:
        """Kills what does not do what it was asked, and kills again what does not end.

        Returns:
            The workers that would not start, or froze as standbys: they are killed, and their exits will be expected.
        """
        patience, fleet = self.settings.patience, self.fleet
        for worker in list(fleet.doomed.values()):
            self._kill_again(worker)
        unfit: list[Death] = []
        for worker in list(fleet.workers.values()):
            if worker.doomed_at is not None:
                continue
            if worker.stop_by is not None and self.now >= worker.stop_by:
                self.announce(f"{worker.title} did not end in time and is killed")
                self.kill(worker, "it did not end in time")
            elif worker.address is None and (waited_s := self._watched_for(worker.started_at)) > patience.start_s:
                unfit.append(Death(worker, f"was not ready after {waited_s:.0f} s", "failure"))
        standbys = (worker for worker in fleet.workers.values() if worker.is_standby)
        for silence in self.policies.hangs.find_silent(standbys, self.now, self.watched_from):
            unfit.append(Death(fleet.workers[silence.worker], silence.what, "failure"))
        for death in unfit:
            self.kill(death.worker, f"it {death.what}")
        return unfit

    def end_frozen(self) -> None:
        """Kills members without a sign of life: they will not save, and those that wait for them need not wait on."""
        for silence in self.policies.hangs.find_silent(self.fleet.acting.values(), self.now, self.watched_from):
            worker = self.fleet.acting[silence.worker]
            self.announce(f"{worker.title} {silence.what} and is killed")
            self.kill(worker, f"it {silence.what}")

    def _kill_again(self, worker: Worker) -> None:
        patience = self.settings.patience
        if self.now - worker.killed_at >= patience.kill_repeat_s:
            self.fleet.doom(worker, worker.kill_reason, self.now)
            self.outbox.append(Kill(worker.name, worker.kill_reason))
        assert worker.doomed_at is not None
        host = self.fleet.hosts[worker.host]
        if self._watched_for(worker.doomed_at) >= patience.kill_s and not host.released and self._holds_up(worker):
            host.released = True
            self.announce(f"{host.name} has not ended {worker.title} for {patience.kill_s:.0f} s and is given back")
            self.outbox.append(ReleaseHost(host.name))

    def _holds_up(self, worker: Worker) -> bool:
        """Whether the next generation has to wait for this worker's end. Otherwise its host may serve on beside it."""
        acting = self.fleet.acting
        return worker.name in acting and not any(one.stays for one in acting.values())

    def _watched_for(self, since: float) -> float:
        return self.now - max(since, self.watched_from)
