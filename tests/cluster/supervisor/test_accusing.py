"""Members that hear wrong data, and whom that costs its place."""

import pytest

from cluster.supervisor.commands import Command, Form, Kill
from cluster.supervisor.events import PeerAccused
from cluster.supervisor.settings import Budgets, Settings, Sizes
from tests.cluster.supervisor.stage import Stage, of, running, workers_of

THREE = Settings(
    sizes=Sizes(min=1, max=3), budgets=Budgets(failures=5, give_back_after_s=100.0), standbys=1, reform=True
)


def accuse(stage: Stage, accuser: str, accused: str, generation: int | None = None) -> list[Command]:
    now = stage.supervisor.generation if generation is None else generation
    return stage.say(PeerAccused(stage.now, accuser, now, accused, "sent 9 bytes that do not have their checksum"))


@pytest.fixture
def stage() -> Stage:
    stage = running(THREE, a=2, b=1, c=1)
    stage.progress(10)
    assert stage.members == ["w1", "w2", "w3"]
    return stage


def replaced(stage: Stage) -> None:
    """Whoever was killed ends, and who was started instead is ready."""
    stage.bury()
    stage.wait_alive(1.0)
    stage.ready()


def test_the_accused_is_named_and_replaced_and_the_others_go_on(stage: Stage) -> None:
    commands = accuse(stage, "w1", "w2")
    assert workers_of(commands, Kill) == ["w2"]
    assert [form.assignment.generation for form in of(Form, commands)] == [2] * 3
    assert set(stage.members) == {"w1", "w3", "w4"}, "the standby has its place"
    assert (
        "worker 1 on b is said by worker 0 on a to send wrong data (sent 9 bytes that do not have their checksum): "
        "generation 2 goes on with the state of the survivors"
    ) in stage.texts
    assert stage.supervisor._run.policies.failures.failures == 1


def test_one_that_accuses_again_whoever_comes_is_the_suspect(stage: Stage) -> None:
    accuse(stage, "w1", "w2")
    replaced(stage)
    other = next(name for name in stage.members if name != "w1")
    assert workers_of(accuse(stage, "w1", other), Kill) == ["w1"]
    assert any("accuses" in text and "soon after another was replaced on its word" in text for text in stage.texts)
    assert "w1" not in stage.members and other in stage.members


def test_another_accuser_is_believed_though_one_was_before(stage: Stage) -> None:
    accuse(stage, "w1", "w2")
    replaced(stage)
    assert workers_of(accuse(stage, "w3", "w1"), Kill) == ["w1"], "both ends of a bad way are replaced in turn"


def test_after_a_long_time_of_peace_an_accuser_is_believed_again(stage: Stage) -> None:
    accuse(stage, "w1", "w2")
    replaced(stage)
    for step in range(20, 140):
        stage.wait_alive(1.0)
        stage.progress(step)
    assert workers_of(accuse(stage, "w1", "w3"), Kill) == ["w3"]


@pytest.mark.parametrize(
    ("accuser", "accused", "generation"),
    [
        ("w1", "w2", 0),  # of an older generation
        ("w1", "w1", 1),
        ("w1", "w4", 1),  # no member
        ("w4", "w1", 1),
        ("w9", "w1", 1),  # nobody
    ],
)
def test_what_means_nothing_costs_nobody_anything(stage: Stage, accuser: str, accused: str, generation: int) -> None:
    assert accuse(stage, accuser, accused, generation) == []


def test_an_accusation_that_is_said_again_costs_one_worker_once(stage: Stage) -> None:
    accuse(stage, "w1", "w2")
    assert accuse(stage, "w1", "w2", generation=1) == []
    assert accuse(stage, "w1", "w2") == [], "it is being killed"
