"""Between two generations: workers are started, and as soon as enough are ready the next generation is formed."""

from dataclasses import replace

from cluster.assignment import SnapshotPlace
from cluster.supervisor import stopping
from cluster.supervisor.facts import Fact, MemberCompleted, StandbyReady, TimePassed, WorkersDied
from cluster.supervisor.fleet import Worker
from cluster.supervisor.judgement import judge_idle, repeated_error, title_of
from cluster.supervisor.placement import candidates, choose_members
from cluster.supervisor.run import Run
from cluster.supervisor.states import Ended, Gathering, Running, Stopping, Waiting

_Next = Gathering | Waiting | Running | Stopping | Ended


def enter(run: Run, since: float, not_before: float) -> _Next:
    """The last generation is over: on to the next."""
    run.plan()
    return _try_to_form(run, Gathering(since, not_before))


def step(run: Run, state: Gathering | Waiting, fact: Fact) -> _Next:
    """What follows from a fact."""
    if isinstance(fact, StandbyReady):
        return _try_to_form(run, state) if isinstance(state, Gathering) else state
    if isinstance(fact, MemberCompleted) and fact.worker == next(iter(run.progress.members)):
        return stopping.finish(run, fact.step)
    if isinstance(fact, WorkersDied):
        ended = judge_idle(run, fact, is_needed=True) or _note_survivors(run, fact)
        if ended is not None:
            return ended
    planned = _plan(run, state) if isinstance(fact, TimePassed) else state
    return _try_to_form(run, planned) if isinstance(planned, Gathering) else planned


def place(snapshot: SnapshotPlace | None) -> str:
    """Where a generation goes on from, for a person."""
    if snapshot is None:
        return "from the newest checkpoint"
    return f"from step {snapshot.step} in the memory of {snapshot.host}"


def _plan(run: Run, state: Gathering | Waiting) -> _Next:
    capacity = run.plan()
    suffices = run.policies.scaling.suffices(capacity)
    if isinstance(state, Waiting):
        if suffices:
            run.announce("there is room for enough workers again")
            return replace(state.gathering, since=run.now)
        patience_s = run.settings.patience.resources_s
        if patience_s is not None and run.now - state.since >= patience_s:
            reason = f"no host offered enough room for {patience_s:.0f} s: {_shortage(run, capacity)}"
            return stopping.give_up(run, "no_resources", reason)
        return state
    sizes = run.settings.sizes
    patience_s = sizes.gather_s if run.goal_size is None else sizes.replace_within_s
    if suffices or run.now - state.since < patience_s:
        return state
    run.announce(f"{_shortage(run, capacity)}: the run waits for hosts")
    return Waiting(run.now, state)


def _shortage(run: Run, capacity: int) -> str:
    return f"{run.settings.sizes.min} workers are needed and the hosts have room for {capacity}"


def _note_survivors(run: Run, fact: WorkersDied) -> Stopping | Ended | None:
    """Members that were to go on in the next generation have died as well.

    That belongs to the trouble that broke the last one: it costs nothing more, and each of them can die only once.
    """
    deaths = [death for death in fact.deaths if death.worker.formed_at is not None and death.cause != "expected"]
    if reason := repeated_error(run, deaths):
        return stopping.give_up(run, "failed", reason)
    if deaths:
        run.announce(f"{title_of(fact)}: generation {run.generation + 1} is formed without it")
        run.plan()
    return None


def _try_to_form(run: Run, state: Gathering) -> _Next:
    scaling, waited_s = run.policies.scaling, run.now - state.since
    reform = run.settings.reform
    survive = reform and any(worker.remains for worker in run.fleet.acting.values())
    fewest = scaling.least(run.goal_size, waited_s, survive)
    # To wait before the next try makes sense where all begin anew.
    if (run.now < state.not_before and not survive) or run.fleet.num_seated + len(run.fleet.acting) < fewest:
        return state
    hosts = run.hosts_to_form_on()
    size = scaling.size(candidates(hosts, reform), run.goal_size, waited_s, survive)
    if size is None:
        return state
    workers = choose_members(hosts, size, survivors=reform)
    assert len(workers) == size, f"{len(workers)} workers were found for {size} members"
    survivors = [worker for worker in workers if worker.formed_at is not None]
    if not survivors and _more_are_coming(run, size, waited_s):
        return state
    # A generation that one of its members has left for the next cannot act any more. Without such a member it may,
    # until the last of them has ended.
    return state if run.fleet.acting and not survivors else _form(run, workers, survivors)


def _more_are_coming(run: Run, size: int, waited_s: float) -> bool:
    """Whether workers are being started that would make a generation larger that is to be smaller than it ought to be.

    To shrink now and to grow when they are ready would interrupt the training once more.
    """
    if (run.goal_size is not None and size >= run.goal_size) or waited_s >= run.settings.patience.start_s:
        return False
    coming = candidates(run.usable_hosts(), survivors=False, starting=True)
    return run.policies.scaling.wanted(coming) > size


def _form(run: Run, workers: list[Worker], survivors: list[Worker]) -> Running:
    fleet, size = run.fleet, len(workers)
    for worker in fleet.acting.values():
        if worker.stays and worker not in survivors:
            _leave_out(run, worker)
    restore, last_size = run.newest_snapshot(), len(run.progress.members)
    members = run.form(workers, restore)
    for host in dict.fromkeys(worker.host for worker in workers):
        run.policies.hosts.start_worked(host)
    if restore is not None and not survivors:
        # Survivors hold a newer state, and say from where they go on.
        run.progress.start_step = restore.step
        run.snapshots.begin(run.generation, restore.step)
    _announce(run, size, last_size, place(restore) if not survivors else "with the state of the survivors")
    run.goal_size = size
    return Running(run.generation, members, run.now, restore)


def _leave_out(run: Run, worker: Worker) -> None:
    leaves_at = run.fleet.hosts[worker.host].leaves_at
    if leaves_at is None:
        run.kill(worker, "the next generation has no place for it")
    else:
        run.stop(worker, "its host leaves", min(leaves_at, run.now + run.settings.patience.stop_s))


def _announce(run: Run, size: int, last_size: int, source: str) -> None:
    hosts = list(dict.fromkeys(worker.host for worker in run.fleet.acting.values()))
    where = ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts"
    workers = f"{size} worker{'s' if size > 1 else ''}"
    if last_size == 0:
        begins = f" {source}" if run.progress.start_step else ""
        run.announce(f"generation {run.generation} starts with {workers} on {where}{begins}")
        return
    changed = f" instead of {last_size}" if size != last_size else ""
    run.announce(f"generation {run.generation} goes on with {workers}{changed} on {where} {source}")
