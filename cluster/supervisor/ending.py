"""The end of a generation: broken, or handing over to the next one. Nothing is formed before all members have ended."""

from dataclasses import replace

from cluster.supervisor import gathering, stopping
from cluster.supervisor.facts import Fact, MemberCompleted, TimePassed, WorkersDied
from cluster.supervisor.judgement import judge_idle, repeated_error, title_of
from cluster.supervisor.run import Run
from cluster.supervisor.states import Ended, Ending, Gathering, HandingOver, Running, Stopping, Waiting

_Next = Gathering | Waiting | Running | HandingOver | Ending | Stopping | Ended


def break_off(run: Run, generation: int, delay_s: float) -> _Next:
    """A generation is broken. Its members are killed, unless survivors can form the next one."""
    if run.settings.reform:
        return gathering.enter(run, run.now, run.now + delay_s)
    for worker in run.fleet.acting.values():
        run.kill(worker, f"generation {generation} is broken")
    state = Ending(generation, run.now, delay_s)
    if not run.fleet.acting:
        return _go_on(run, state)
    run.plan()
    return state


def hand_over(run: Run, generation: int, within_s: float = float("inf")) -> _Next:
    """A generation makes room for the next one. Its members save and end, unless they can form it themselves.

    Args:
        run: the run.
        generation: which one.
        within_s: seconds after which members that have not ended are killed, if that is soon.

    Those that could form it themselves do not where all of them are on hosts that leave or are set aside.
    """
    stay = {host.name for host in run.usable_hosts()}
    if run.settings.reform and any(worker.remains and worker.host in stay for worker in run.fleet.acting.values()):
        return gathering.enter(run, run.now, run.now)
    by = run.now + min(run.settings.patience.stop_s, within_s)
    for host in run.fleet.draining.values():
        if host.leaves_at is not None and host.leaves_at > run.now:
            by = min(by, host.leaves_at)
    for worker in run.fleet.acting.values():
        run.stop(worker, f"generation {generation + 1} takes over", by)
    state = HandingOver(generation, run.now)
    if not run.fleet.acting:
        return _go_on(run, state)
    run.plan()
    return state


def step(run: Run, state: Ending | HandingOver, fact: Fact) -> _Next:
    """What follows from a fact."""
    if isinstance(fact, MemberCompleted) and fact.worker == next(iter(run.progress.members)):
        return stopping.finish(run, fact.step)
    if isinstance(fact, TimePassed):
        if isinstance(state, HandingOver):
            run.end_frozen()
        if isinstance(state, HandingOver) and any(worker.doomed_at for worker in run.fleet.acting.values()):
            return _go_on_without(run, state)
        run.plan()
    if not isinstance(fact, WorkersDied):
        return state
    if isinstance(state, Ending) and _is_as_ordered(fact):
        return state if run.fleet.acting else _go_on(run, state)
    members = [death for death in fact.deaths if death.worker.formed_at is not None]
    # The rank whose error broke the generation may be heard after the peers that it took along.
    if reason := repeated_error(run, members):
        return stopping.give_up(run, "failed", reason)
    ended = judge_idle(run, fact, is_needed=False)
    if ended is not None:
        return ended
    unclean = [death for death in members if death.cause != "clean"]
    if unclean and isinstance(state, HandingOver):
        run.announce(f"{title_of(fact)} before it had handed over: generation {state.generation} is broken off")
        return _go_on_without(run, state)
    return state if run.fleet.acting else _go_on(run, state)


def _go_on_without(run: Run, state: HandingOver) -> _Next:
    """Members did not hand over: the others do, if they can form a group that saves the state."""
    if stopping.save_with_the_rest(run):
        return replace(state, generation=run.generation)
    return break_off(run, state.generation, delay_s=0.0)


def _is_as_ordered(fact: WorkersDied) -> bool:
    """Whether only workers that had been killed have died, and of nothing else."""
    return fact.host is None and all(death.cause == "expected" and death.error is None for death in fact.deaths)


def _go_on(run: Run, state: Ending | HandingOver) -> _Next:
    delay_s = state.delay_s if isinstance(state, Ending) else 0.0
    return gathering.enter(run, state.since, state.since + delay_s)
