"""What deaths cost: hosts are noted, budgets are spent, and an error that comes back ends the run."""

from collections.abc import Sequence

from cluster.supervisor import stopping
from cluster.supervisor.facts import Death, WorkersDied
from cluster.supervisor.failure_policy import Verdict
from cluster.supervisor.run import Run
from cluster.supervisor.states import Ended, Stopping


def title_of(fact: WorkersDied) -> str:
    """Who died and how, as the beginning of a sentence."""
    if fact.host is None:
        death = fact.deaths[0]
        return f"{death.worker.title} {death.what}"
    # Those that had been killed before are not lost with the host.
    lost = [_short(death) for death in fact.deaths if death.cause != "expected"]
    return f"{fact.host} was lost ({fact.reason}) with {_list(lost)}"


def judge_members(run: Run, fact: WorkersDied, deaths: Sequence[Death]) -> Verdict:
    """Spends the budget that the deaths of members belong to.

    Args:
        run: the run.
        fact: what happened.
        deaths: those of it that broke the generation.
    """
    if reason := repeated_error(run, deaths):
        return Verdict(False, reason=reason)
    if all(death.cause == "preemption" for death in deaths):
        verdict = run.policies.failures.preempt(run.now)
    else:
        # An error of the user's says nothing about the host.
        hosts = dict.fromkeys(death.worker.host for death in deaths if death.cause in ("failure", "clean"))
        for host in hosts:
            if run.policies.hosts.fail(host, run.now, _others(run, host)):
                run.set_aside(host)
        verdict = run.policies.failures.fail(run.now, run.best_step)
    if verdict.goes_on:
        return verdict
    return Verdict(False, reason=_with_traceback(deaths, f"{title_of(fact)}, and {verdict.reason}"))


def judge_idle(run: Run, fact: WorkersDied, is_needed: bool) -> Stopping | Ended | None:
    """What the deaths of workers that were no members lead to.

    They are the business of their hosts, unless the run cannot do without the host: then the run pays.

    Args:
        run: the run.
        fact: what happened; deaths of members in it are passed over.
        is_needed: whether the run waits for such workers. While a generation runs, nothing is spent on them.

    Returns:
        The next state, if the run ends; else None.
    """
    deaths = [death for death in fact.deaths if death.worker.formed_at is None and death.cause != "expected"]
    if reason := repeated_error(run, deaths):
        return stopping.give_up(run, "failed", reason)
    if fact.host is not None:
        if all(death.worker.formed_at is None or death.cause == "expected" for death in fact.deaths):
            run.announce(f"{fact.host} was lost ({fact.reason})")
        return None
    for death in deaths:
        run.announce(f"{title_of(fact)}: another is started in its place")
        if death.cause == "preemption":
            continue
        host = death.worker.host
        too_often = run.policies.hosts.start_failed(
            host, run.now - death.worker.started_at, run.now, _others(run, host)
        )
        if too_often and not run.set_aside(host) and is_needed:
            verdict = run.policies.failures.fail(run.now, run.best_step)
            if not verdict.goes_on:
                reason = _with_traceback(deaths, f"{title_of(fact)}, and {verdict.reason}")
                return stopping.give_up(run, "failed", reason)
    return None


def _others(run: Run, host: str) -> list[str]:
    return [one.name for one in run.usable_hosts() if one.name != host]


def repeated_error(run: Run, deaths: Sequence[Death]) -> str | None:
    """Notes the errors of the user's code.

    Returns:
        Why the run ends, when one of them came back: its traceback first, then who raised it.
    """
    for death in deaths:
        error, worker = death.error, death.worker
        if error is None or not error.is_user_error:
            continue
        began_at = worker.started_at if worker.formed_at is None else worker.formed_at
        if run.policies.failures.is_repeated(error, began_at, run.now):
            return _with_traceback([death], f"{worker.title} {death.what}, for the second time at this step")
    return None


def _with_traceback(deaths: Sequence[Death], sentence: str) -> str:
    tracebacks = [death.error.traceback.rstrip("\n") for death in deaths if death.error and death.error.traceback]
    return "\n".join([*tracebacks[:1], sentence])


def _short(death: Death) -> str:
    return f"worker {death.worker.rank}" if death.worker.rank >= 0 else f"standby {death.worker.name}"


def _list(names: list[str]) -> str:
    if len(names) > 4:
        return f"{len(names)} workers"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
