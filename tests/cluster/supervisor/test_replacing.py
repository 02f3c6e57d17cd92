"""Members that serve the others are replaced while the generation goes on."""

from cluster.supervisor.commands import Form, Kill
from cluster.supervisor.events import Heartbeat, Progressed
from cluster.supervisor.settings import Budgets, HangLimits, Settings, Sizes
from cluster.supervisor.states import Ending, Gathering, Running
from tests.cluster.supervisor.stage import SIGKILL, Stage, of, workers_of

# Rank 0 acts, rank 1 keeps the state, ranks 2 and 3 can be replaced.
SERVED = Settings(
    sizes=Sizes(min=4, max=4), standbys=1, replaceable_from=2, hangs=HangLimits(floor_s=20.0, silent_s=15.0)
)


def serving(settings: Settings = SERVED, **slots: int) -> Stage:
    stage = Stage(settings)
    stage.join(**(slots or {"a": 4}))
    stage.ready()
    stage.progress(0, "serve", *stage.members[1:])
    for phase in ("restore", "compile", "step"):
        stage.progress(0, phase, stage.members[0])
    return stage


def state_of(stage: Stage) -> Running:
    assert isinstance(stage.supervisor.state, Running)
    return stage.supervisor.state


def test_a_standby_takes_the_dead_ones_rank_and_address_in_the_same_generation() -> None:
    stage = serving()
    commands = stage.exit("w3", signal=SIGKILL)
    [form] = of(Form, commands)
    assert (form.worker, form.assignment.generation, form.assignment.rank) == ("w5", 1, 2)
    assert form.assignment.itself.address == "a:1" and form.assignment.restore is None
    assert [member.worker for member in form.assignment.members] == ["w1", "w2", "w5", "w4"]
    assert not of(Kill, commands), "the others go on"
    assert state_of(stage).members == form.assignment.members and not state_of(stage).vacancies
    assert stage.texts[-2:] == [
        "worker 2 on a was killed (SIGKILL): the others go on, and a standby takes its place",
        "worker 2 on a is taken over by w5",
    ]


def test_without_a_standby_the_place_waits_for_one_on_the_same_host() -> None:
    stage = serving(Settings(**{**vars(SERVED), "standbys": 0}), a=2, b=2)
    victim = stage.members[2]
    stage.exit(victim, signal=SIGKILL)
    assert [vacancy.member.worker for vacancy in state_of(stage).vacancies] == [victim]
    assert stage.hosts["w5"] == stage.hosts[victim]
    [form] = of(Form, stage.ready("w5"))
    assert (form.worker, form.assignment.rank) == ("w5", 2)
    assert form.assignment.itself.host == stage.hosts[victim]


def test_the_death_of_a_member_that_holds_the_state_ends_the_generation() -> None:
    for victim in ("w1", "w2"):
        stage = serving()
        stage.exit(victim, signal=SIGKILL)
        assert isinstance(stage.supervisor.state, Ending)
        stage.bury()
        stage.ready()
        assert stage.supervisor.generation == 2


def test_a_frozen_member_is_killed_and_its_place_filled_when_it_has_surely_ended() -> None:
    stage = serving()
    commands = []
    for step in range(30):
        stage.say(Progressed(stage.now, "w1", 1, step, "step"))
        commands += stage.wait_alive(1.0, "w4")
    assert workers_of(commands, Kill)[0] == "w4"
    assert [vacancy.member.worker for vacancy in state_of(stage).vacancies] == ["w4"]
    assert not of(Form, commands), "the frozen process still holds the address"
    stage.say(Progressed(stage.now, "w4", 1, 0, "serve"))  # what it said before it froze, come late
    stage.exit("w4", signal=SIGKILL)
    [form] = of(Form, stage.wait_alive(1.0))
    assert (form.worker, form.assignment.rank) == ("w5", 3)


def test_a_member_that_serves_is_never_blamed_for_making_no_progress() -> None:
    stage = serving()
    stage.progress(10, "step", "w1")
    for step in range(11, 200):
        stage.say(Progressed(stage.now, "w1", 1, step, "step"))
        assert not of(Kill, stage.wait_alive(1.0))
    for worker in stage.alive:
        stage.say(Heartbeat(stage.now, worker))
    assert workers_of(stage.wait_alive(60.0), Kill)[0] == "w1", "the one that stands still is the one that acts"


def test_replacements_spend_the_budget_of_failures() -> None:
    stage = serving(Settings(**{**vars(SERVED), "budgets": Budgets(failures=1)}))
    stage.exit("w3", signal=SIGKILL)
    stage.ready()
    stage.exit("w4", signal=SIGKILL)
    assert not isinstance(stage.supervisor.state, Running | Gathering)
    stage.bury()
    assert stage.outcome is not None and stage.outcome.outcome == "failed"
