"""Members that serve the others are replaced one by one, while the generation goes on without them.

Whoever takes a place must be reached where the last one was, because the others go on looking for it there. So it has
to run on the same host, and to wait until the last one has ended for sure.
"""

from collections.abc import Sequence
from dataclasses import replace

from cluster.assignment import Assignment, Member
from cluster.supervisor.commands import Form
from cluster.supervisor.facts import Death, WorkersDied
from cluster.supervisor.fleet import Worker
from cluster.supervisor.judgement import title_of
from cluster.supervisor.run import Run
from cluster.supervisor.states import Running, Vacancy


def can_be_replaced(run: Run, state: Running, fact: WorkersDied, deaths: Sequence[Death]) -> bool:
    """Whether the generation can go on: only members that serve died, and one still does or others can instead."""
    first = run.settings.replaceable_from
    if first is None or fact.host is not None or any(death.worker.rank < first for death in deaths):
        return False
    gone = {death.worker.name for death in deaths} | {vacancy.member.worker for vacancy in state.vacancies}
    serving = [member for member in state.members if member.rank >= first and member.worker not in gone]
    return bool(serving) or all(_host_stays(run, death.worker.host) for death in deaths)


def give_up_places(run: Run, state: Running, fact: WorkersDied, deaths: Sequence[Death], delay_s: float) -> Running:
    """These members are gone; the generation goes on."""
    members = {member.worker: member for member in state.members}
    run.announce(f"{title_of(fact)}: the others go on, and a standby takes its place")
    for death in deaths:
        run.progress.replace(death.worker.name, None, run.now)
    vacancies = tuple(Vacancy(members[death.worker.name], run.now + delay_s) for death in deaths)
    run.plan()
    suspicion = state.suspicion
    if suspicion is not None and suspicion.worker in {death.worker.name for death in deaths}:
        suspicion = None
    return fill(run, replace(state, vacancies=state.vacancies + vacancies, suspicion=suspicion))


def fill(run: Run, state: Running) -> Running:
    """Standbys take the places for which they can."""
    for vacancy in state.vacancies:
        worker = _successor(run, vacancy)
        if worker is not None:
            state = _take(run, state, vacancy, worker)
    return state


def _successor(run: Run, vacancy: Vacancy) -> Worker | None:
    member = vacancy.member
    if run.now < vacancy.not_before or member.worker in run.fleet.workers or not _host_stays(run, member.host):
        return None
    return next((worker for worker in run.fleet.hosts[member.host].workers.values() if worker.is_standby), None)


def _host_stays(run: Run, host: str) -> bool:
    return any(one.name == host for one in run.usable_hosts())


def _take(run: Run, state: Running, vacancy: Vacancy, worker: Worker) -> Running:
    old = vacancy.member
    new = Member(worker.name, worker.host, old.rank, old.address)
    members = tuple(new if member.rank == old.rank else member for member in state.members)
    run.fleet.step_in(worker, old.rank, run.now)
    run.progress.replace(old.worker, new.worker, run.now)
    run.outbox.append(Form(new.worker, Assignment(state.generation, new.rank, members, None)))
    run.announce(f"{worker.title} is taken over by {worker.name}")
    vacancies = tuple(one for one in state.vacancies if one is not vacancy)
    return replace(state, members=members, vacancies=vacancies)
