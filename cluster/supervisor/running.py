"""A generation trains, until it is through, breaks, has to move off a host, or can grow."""

from dataclasses import replace

from cluster.supervisor import ending, replacing, stopping
from cluster.supervisor.accusing import convict
from cluster.supervisor.commands import ReleaseHost
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
)
from cluster.supervisor.gathering import place
from cluster.supervisor.hang_policy import Hang
from cluster.supervisor.judgement import judge_idle, judge_members, title_of
from cluster.supervisor.placement import candidates, capacity
from cluster.supervisor.run import Run
from cluster.supervisor.states import Running, State, Suspicion


def step(run: Run, state: Running, fact: Fact) -> State:
    """What follows from a fact."""
    match fact:
        case WorkersDied():
            return _on_deaths(run, state, fact)
        case MemberCompleted():
            run.progress.completed[fact.worker] = None
            return _finish_if_through(run, state, fact.step)
        case HostLeaves():
            # Looked at with the next tick: of a wave of notices, and of the standbys that answer it, each would cost a
            # look at all hosts.
            run.announce(f"{fact.host} leaves in {fact.notice_s:.0f} s: its workers are replaced")
        case MemberLeaves():
            return _replace(run, state, fact)
        case MembersSuspected():
            return _end_suspects(run, state, fact)
        case MemberAccused():
            death = convict(run, fact)
            return _break(run, state, WorkersDied((death,)), [death])
        case StandbyReady() if state.vacancies:
            return _leave_if_due(run, replacing.fill(run, state))
        case StandbyReady() if run.settings.reform and state.suspicion is None:
            return _grow_if_due(run, state)
        case BoundaryReached() if state.growing_since is not None and state.suspicion is None:
            return _grow(run, state)
        case TimePassed():
            return _on_time(run, state)
    return state


def _on_deaths(run: Run, state: Running, fact: WorkersDied) -> State:
    ended = judge_idle(run, fact, is_needed=False)
    if ended is not None:
        return ended
    broken: list[Death] = []
    for death in fact.deaths:
        if death.worker.name not in run.progress.members or death.cause == "expected":
            continue
        if death.worker.name in run.progress.completed:
            continue
        if death.cause == "clean":
            run.progress.left[death.worker.name] = (run.now, death)
        else:
            broken.append(death)
    if broken:
        return _break(run, state, fact, broken)
    return _finish_if_through(run, state, run.progress.best_step)


def _finish_if_through(run: Run, state: Running, step: int) -> State:
    progress = run.progress
    chief = state.members[0].worker
    # The chief's word is enough: it is the one that saves. Without it, all must have ended well and one must say so.
    if chief in progress.completed or (
        progress.completed and all(name in progress.completed or name in progress.left for name in progress.members)
    ):
        return stopping.finish(run, step)
    return state


def _break(run: Run, state: Running, fact: WorkersDied, broken: list[Death]) -> State:
    """The generation cannot go on without these members."""
    restored = state.restored
    if (
        restored is not None
        and run.progress.best_step < 0
        and any(death.error is not None and _phase(run, death) == "restore" for death in broken)
    ):
        run.announce(f"the snapshot of step {restored.step} in the memory of {restored.host} could not be restored")
        run.snapshots.distrust(restored)
    verdict = judge_members(run, fact, broken)
    if not verdict.goes_on:
        run.announce(f"{title_of(fact)}: the run ends")
        return stopping.give_up(run, "failed", verdict.reason)
    if replacing.can_be_replaced(run, state, fact, broken):
        return replacing.give_up_places(run, state, fact, broken, verdict.delay_s)
    wait = f", after {verdict.delay_s:g} s" if verdict.delay_s else ""
    survives = run.settings.reform and any(worker.remains for worker in run.fleet.acting.values())
    source = "with the state of the survivors" if survives else place(run.newest_snapshot())
    run.announce(f"{title_of(fact)}: generation {state.generation + 1} goes on {source}{wait}")
    return ending.break_off(run, state.generation, verdict.delay_s)


def _end_suspects(run: Run, state: Running, fact: MembersSuspected) -> State:
    """Members that compute wrongly are ended before their numbers are used.

    Where it is proven their hosts are set aside, and what they keep in memory is not gone on from. Where it may be any
    of them, all are ended, and their hosts have a failure each.
    """
    at_step = f"at step {fact.step + 1}"
    for worker in fact.workers:
        run.kill(worker, f"it {fact.what} {at_step}")
    if fact.is_proven:
        for host in dict.fromkeys(worker.host for worker in fact.workers):
            run.snapshots.distrust_host(host)
            if run.set_aside(host, "computes wrongly", is_certain=True):
                for worker in run.fleet.hosts[host].workers.values():
                    run.kill(worker, "its host computes wrongly")
            else:
                run.announce(f"{host} computes wrongly and is used on, because the run cannot do without it")
    else:
        titles = " or ".join(worker.title for worker in fact.workers)
        run.announce(f"{titles} computes wrongly {at_step}, and nobody can tell which: all of them are ended")
    deaths = [Death(worker, f"{fact.what} {at_step} and is ended", "failure") for worker in fact.workers]
    return _break(run, state, WorkersDied(tuple(deaths)), deaths)


def _phase(run: Run, death: Death) -> str:
    return run.progress.members[death.worker.name].phase


def _on_time(run: Run, state: Running) -> State:
    run.plan()
    state = replacing.fill(run, state)
    for at, death in run.progress.left.values():
        if run.now - at >= run.settings.patience.exit_s:
            death = replace(death, what=f"{death.what} before the training was complete")
            return _break(run, state, WorkersDied((death,)), [death])
    watched = _watch(run, state)
    if not isinstance(watched, Running):
        return watched
    state = watched
    hangs = run.settings.hangs
    for worker, ratio in run.progress.stragglers(hangs.straggler_ratio, hangs.straggler_floor_s):
        if one := run.fleet.workers.get(worker):
            run.announce(f"{one.title} is slow: it takes {ratio:.1f} times as long for a step as the others")
    if state.suspicion is not None:
        return state
    run.policies.failures.note_progress(run.now, state.since, run.best_step)
    _release_left_hosts(run)
    next_state = _leave_if_due(run, state)
    if next_state is state and hangs.replace_stragglers:
        next_state = _leave_slow_host(run, state)
    return _grow_if_due(run, state) if next_state is state else next_state


def _watch(run: Run, state: Running) -> State:
    """Looks for members that hang: first all write their stacks to their logs, then the culprit is killed."""
    suspicion = state.suspicion
    if suspicion is not None and run.now < suspicion.until:
        return state
    hang = _find_hang(run)
    if hang is None:
        if suspicion is not None:
            run.announce("the members make progress again, and nobody is killed")
        return replace(state, suspicion=None)
    worker = run.fleet.acting.get(hang.worker)
    if suspicion is None:
        title = worker.title if worker else hang.worker
        run.announce(f"{title} {hang.what}: all members write their stacks to their logs")
        run.dump_stacks()
        return replace(state, suspicion=Suspicion(hang.worker, run.now + run.settings.patience.dump_s))
    assert worker is not None, "a member that is gone has broken the generation before"
    run.kill(worker, f"it {hang.what}")
    death = Death(worker, f"{hang.what} and is killed", "failure")
    return _break(run, state, WorkersDied((death,)), [death])


def _find_hang(run: Run) -> Hang | None:
    hangs = run.policies.hangs
    acting = (worker for name, worker in run.fleet.acting.items() if name not in run.progress.completed)
    silent = hangs.find_silent(acting, run.now, run.watched_from)
    if silent:
        return silent[0]
    heard_at = {name: worker.heard_at for name, worker in run.fleet.acting.items()}
    return hangs.find(run.progress, heard_at, run.now, run.intervals.median_s(), run.watched_from)


def _replace(run: Run, state: Running, fact: MemberLeaves) -> State:
    """A member has been told from outside to end: all save, and another takes its place."""
    who = f"{fact.worker.title} has been told to end ({fact.reason})"
    verdict = run.policies.failures.preempt(run.now)
    if not verdict.goes_on:
        run.announce(f"{who}: the run ends")
        return stopping.give_up(run, "failed", f"{who}, and {verdict.reason}")
    run.announce(f"{who}: generation {state.generation + 1} takes over")
    return ending.hand_over(run, state.generation, within_s=fact.notice_s)


def _leave_if_due(run: Run, state: Running) -> State:
    """Moves the generation off hosts that leave: when replacements are ready, or when the notice is nearly over."""
    leaving = [
        host
        for host in run.fleet.draining.values()
        if any(name in run.fleet.acting for name in host.workers) and host.leaves_at is not None
    ]
    if not leaving:
        return state
    names = ", ".join(host.name for host in leaving)
    replaced = candidates(run.usable_hosts(), survivors=True) >= len(state.members)
    deadline = min(host.leaves_at for host in leaving if host.leaves_at is not None)
    if not replaced and run.now < deadline - run.settings.patience.drain_s:
        return state
    verdict = run.policies.failures.preempt(run.now)
    if not verdict.goes_on:
        run.announce(f"{names} leaves: the run ends")
        return stopping.give_up(run, "failed", f"{names} leaves, and {verdict.reason}")
    run.announce(f"{names} leaves: generation {state.generation + 1} takes over")
    return ending.hand_over(run, state.generation)


def _leave_slow_host(run: Run, state: Running) -> State:
    """Sets the host of a straggler aside if others have room, and moves the generation when workers are ready there."""
    for name in run.progress.slow:
        worker = run.fleet.acting.get(name)
        if worker is None or not run.policies.failures.may_resize():
            continue
        if not run.policies.hosts.is_aside(worker.host):
            others = [host for host in run.usable_hosts() if host.name != worker.host]
            if capacity(others) < len(state.members) or not run.set_aside(worker.host, "is slow", is_certain=True):
                continue
            run.plan()
        if candidates(run.usable_hosts(), survivors=True) >= len(state.members):
            run.policies.failures.resize(run.now)
            run.announce(f"generation {state.generation + 1} takes over without {worker.host}")
            return ending.hand_over(run, state.generation)
    return state


def _release_left_hosts(run: Run) -> None:
    # Not before the generation trains: until then it may restore from the memory of such a host.
    if run.progress.stepped:
        for host in run.fleet.draining.values():
            if not host.workers and not host.released:
                host.released = True
                run.outbox.append(ReleaseHost(host.name))


def _grow_if_due(run: Run, state: Running) -> State:
    policies = run.policies
    if len(state.members) >= run.settings.sizes.max and state.growing_since is None:
        return state
    if not policies.failures.may_resize() or _grown_size(run, state) is None:
        return replace(state, growing_since=None)
    if state.growing_since is None:
        return replace(state, growing_since=run.now)
    return _grow(run, state) if policies.scaling.must_grow(run.now - state.growing_since) else state


def _grown_size(run: Run, state: Running) -> int | None:
    seats = candidates(run.usable_hosts(), survivors=True)
    return run.policies.scaling.grown_size(len(state.members), seats, run.now - state.since, run.settings.reform)


def _grow(run: Run, state: Running) -> State:
    size = _grown_size(run, state)
    if size is None:  # the room is gone since
        return replace(state, growing_since=None)
    run.policies.failures.resize(run.now)
    run.announce(f"there is room for {size} workers: generation {state.generation + 1} takes over")
    run.goal_size = size
    return ending.hand_over(run, state.generation)
