"""The end of a run: every worker ends, then the person is told how it went."""

from cluster.supervisor.commands import Finish, Outcome
from cluster.supervisor.facts import Fact, MemberCompleted, TimePassed
from cluster.supervisor.run import Run
from cluster.supervisor.states import Ended, Stopping


def finish(run: Run, step: int) -> Stopping | Ended:
    """The training is complete: the members end by themselves."""
    for worker in run.fleet.acting.values():
        worker.stop_by = run.now + run.settings.patience.finish_s
    return _end(run, Stopping("finished", f"the training is complete at step {step}"))


def stop(run: Run, reason: str) -> Stopping | Ended:
    """Somebody wants the run to end: the members save their state and end, all others end at once."""
    for worker in run.fleet.acting.values():
        run.stop(worker, reason, run.now + run.settings.patience.stop_s)
    return _end(run, Stopping("stopped", reason))


def give_up(run: Run, outcome: Outcome, reason: str) -> Stopping | Ended:
    """The run cannot go on: all workers end at once."""
    for worker in run.fleet.acting.values():
        run.kill(worker, "the run ends")
    return _end(run, Stopping(outcome, reason))


def step(run: Run, state: Stopping, fact: Fact) -> Stopping | Ended:
    """What follows while the last workers end."""
    if isinstance(fact, MemberCompleted) and fact.worker == next(iter(run.progress.members)):
        # The chief was through before the request reached it.
        state = Stopping("finished", f"the training is complete at step {fact.step}")
    if isinstance(fact, TimePassed):
        # A host that answers nothing must not keep the run from ending: no generation will follow.
        bound_s = 2 * run.settings.patience.kill_s
        since = run.watched_from
        if all(run.now - max(worker.doomed_at or run.now, since) >= bound_s for worker in run.fleet.workers.values()):
            return _ended(run, state)
    return state if run.fleet.workers else _ended(run, state)


def _end(run: Run, state: Stopping) -> Stopping | Ended:
    for worker in run.fleet.workers.values():
        if worker.stays:  # nobody told it to end before
            run.kill(worker, "the run ends")
    return state if run.fleet.workers else _ended(run, state)


def _ended(run: Run, state: Stopping) -> Ended:
    run.outbox.append(Finish(state.outcome, state.reason))
    return Ended(state.outcome, state.reason)
