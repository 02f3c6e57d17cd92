"""Hosts that leave, generations that grow, and survivors that form the next generation."""

from dataclasses import replace

import pytest

from cluster.assignment import SnapshotPlace
from cluster.supervisor.commands import Form, Kill, ReleaseHost, StartWorker, Stop
from cluster.supervisor.settings import Budgets, HangLimits, HostLimits, Settings, Sizes
from cluster.supervisor.states import HandingOver, Running, Stopping
from tests.cluster.supervisor.stage import SIGKILL, Stage, of, running, workers_of

TWO = Settings(sizes=Sizes(min=2, max=2), standbys=1)


def test_a_leaving_host_is_replaced_before_its_notice_ends() -> None:
    stage = running(TWO, a=1, b=1)
    stage.join(c=1)
    stage.progress(100)
    commands = stage.drain("b", notice_s=60.0)
    assert of(StartWorker, commands)[0].host == "c"
    stops = of(Stop, stage.ready() + stage.wait_alive(1.0))
    assert [stop.worker for stop in stops] == ["w1", "w2"]
    assert isinstance(stage.supervisor.state, HandingOver)
    stage.exit("w1", code=0)
    assert stage.assignment.generation == 1
    stage.exit("w2", code=0)
    stage.wait_alive(1.0)
    stage.ready()
    assert [member.host for member in stage.assignment.members] == ["a", "c"]
    for phase in ("restore", "compile", "step"):
        stage.progress(100, phase)
    stage.progress(101)
    assert ReleaseHost("b") in stage.wait_alive(1.0)
    stage.lose("b")
    assert not any("was lost" in text for text in stage.texts)


def test_without_a_replacement_the_members_still_save_in_time() -> None:
    stage = running(Settings(sizes=Sizes(min=2, max=2), standbys=0), a=1, b=1)
    stage.drain("b", notice_s=60.0)
    assert not of(Stop, stage.wait_alive(44.0))
    assert len(of(Stop, stage.wait_alive(1.0))) == 2


def test_a_member_that_is_told_to_end_costs_a_preemption_and_no_failure() -> None:
    stage = running(replace(TWO, standbys=2, budgets=Budgets(failures=0, preemptions=1)), a=2)
    stage.progress(100)
    stops = of(Stop, stage.leave("w2"))
    assert [stop.worker for stop in stops] == ["w1", "w2"]
    assert stage.leave("w2") == [], "a second signal says nothing new"
    assert "worker 1 on a has been told to end (SIGTERM): generation 2 takes over" in stage.texts
    stage.exit("w1", code=0)
    stage.exit("w2", code=0)
    assert stage.members == ["w3", "w4"]
    for phase in ("restore", "compile", "step"):
        stage.progress(100, phase)
    stage.leave("w3")
    assert stage.outcome is None and isinstance(stage.supervisor.state, Stopping)
    assert "the one allowed preemption" in stage.supervisor.state.reason


def test_a_member_whose_notice_is_over_is_killed_which_is_no_failure_either() -> None:
    stage = running(replace(TWO, standbys=2, budgets=Budgets(failures=0)), a=2)
    stage.leave("w2", notice_s=5.0)
    stage.exit("w2", signal=SIGKILL)  # whoever sent the signal did not wait
    assert "before it had handed over" in stage.texts[-1]
    stage.bury()
    stage.wait_alive(1.0)
    assert stage.members == ["w3", "w4"]
    stage.leave("w3", notice_s=5.0)
    stage.wait_alive(4.0)
    assert not stage.all(Kill)[2:]
    assert [kill.worker for kill in of(Kill, stage.wait_alive(1.0))] == ["w3", "w4"]


def test_a_standby_that_is_told_to_end_is_not_taken_and_another_is_started() -> None:
    stage = running(TWO, a=2)
    assert stage.leave("w3") == []
    assert of(StartWorker, stage.wait_alive(1.0)) == [StartWorker("w4", "a")]
    stage.exit("w1", signal=SIGKILL)
    stage.bury()
    stage.ready("w4")
    stage.exit("w3", code=130)
    stage.wait_alive(1.0)
    stage.ready()
    assert "w3" not in stage.members


def test_a_member_that_freezes_while_it_hands_over_is_not_waited_for() -> None:
    stage = running(replace(TWO, standbys=2, hangs=HangLimits(silent_s=15.0)), a=2)
    stage.progress(100)
    stage.snapshot("a", 100)
    stage.leave("w2", notice_s=60.0)
    assert not of(Kill, stage.wait_alive(15.0, "w1"))
    assert [kill.worker for kill in of(Kill, stage.wait_alive(1.0, "w1"))] == ["w1", "w2"]
    assert "worker 0 on a has given no sign of life for 16 s and is killed" in stage.texts
    stage.bury()
    assert stage.members == ["w3", "w4"] and stage.assignment.restore == SnapshotPlace(100, "a")


def test_a_saved_handover_goes_on_from_its_checkpoint_not_from_an_older_snapshot() -> None:
    stage = running(Settings(sizes=Sizes(min=1, max=2, replace_within_s=0.0), standbys=0), a=1, b=1)
    stage.progress(90)
    stage.snapshot("a", 90)
    stage.wait_alive(1.0)
    stage.progress(99)
    stage.drain("b", notice_s=1.0)
    stage.durable(100)
    stage.exit("w1", code=0)
    stage.exit("w2", code=0)
    stage.wait_alive(1.0)
    stage.ready()
    stage.wait_alive(1.0)
    assert stage.assignment.generation == 2 and stage.assignment.restore is None


def test_a_snapshot_of_the_handover_itself_is_used() -> None:
    stage = running(Settings(sizes=Sizes(min=1, max=2, replace_within_s=0.0), standbys=0), a=1, b=1)
    stage.progress(99)
    stage.drain("b", notice_s=1.0)
    stage.snapshot("a", 100)
    stage.durable(100)
    stage.exit("w1", code=0)
    stage.exit("w2", code=0)
    stage.wait_alive(1.0)
    stage.ready()
    stage.wait_alive(1.0)
    assert stage.assignment.restore == SnapshotPlace(100, "a")


def test_members_that_end_in_order_and_have_saved_nothing_do_not_cost_the_snapshots() -> None:
    stage = running(Settings(sizes=Sizes(min=1, max=2, replace_within_s=0.0), standbys=0), a=1, b=1)
    stage.progress(99)
    stage.snapshot("a", 90)
    stage.drain("b", notice_s=1.0)
    stage.exit("w1", code=0)
    stage.exit("w2", code=0)
    stage.wait_alive(1.0)
    stage.ready()
    stage.wait_alive(1.0)
    assert stage.assignment.restore == SnapshotPlace(90, "a")


def test_a_generation_grows_at_its_next_boundary() -> None:
    settings = Settings(sizes=Sizes(min=1, max=2, gather_s=1.0, keep_s=20.0, grow_within_s=60.0), standbys=0)
    stage = running_alone(settings)
    stage.join(b=1)
    stage.ready()
    stage.snapshot("a", 10)
    assert not stage.all(Stop), "not before it has run for a while"
    stage.wait_alive(20.0)
    assert not stage.all(Stop), "not before the state is saved"
    stops = of(Stop, stage.snapshot("a", 20))
    assert [stop.worker for stop in stops] == ["w1"]
    stage.exit("w1", code=0)
    stage.wait_alive(1.0)
    stage.ready()
    assert len(stage.members) == 2
    assert stage.last_words.startswith("generation 2 goes on with 2 workers instead of 1 on a, b")


def test_growth_does_not_wait_for_a_boundary_for_ever_and_ends_with_its_budget() -> None:
    sizes = Sizes(min=1, max=2, gather_s=1.0, keep_s=1.0, grow_within_s=30.0)
    stage = running_alone(Settings(sizes=sizes, standbys=0, budgets=Budgets(resizes=1)))
    stage.join(b=1)
    stage.ready()
    assert of(Stop, stage.wait_alive(33.0))
    stage = running_alone(Settings(sizes=sizes, standbys=0, budgets=Budgets(resizes=0)))
    stage.join(b=1)
    stage.ready()
    assert not of(Stop, stage.wait_alive(100.0))


def running_alone(settings: Settings) -> Stage:
    stage = Stage(settings)
    stage.join(a=1)
    stage.ready()
    stage.wait_alive(settings.sizes.gather_s)
    for phase in ("restore", "compile", "step"):
        stage.progress(0, phase)
    assert isinstance(stage.supervisor.state, Running)
    return stage


def test_survivors_form_the_next_generation_in_their_own_processes() -> None:
    stage = running(replace(TWO, reform=True, sizes=Sizes(min=3, max=3)), a=2, b=2)
    stage.progress(480)
    commands = stage.exit("w2", signal=SIGKILL)
    assert not of(Kill, commands)
    forms = of(Form, commands)
    assert [form.worker for form in forms] == ["w1", "w3", "w4"], "survivors first: rank 0 holds the state"
    assert forms[0].assignment.generation == 2
    assert stage.last_words.startswith("generation 2 goes on with 3 workers on a, b with the state of the survivors")


def test_a_leaving_host_is_left_without_ending_the_survivors() -> None:
    stage = running(replace(TWO, reform=True), a=1, b=1)
    stage.join(c=1)
    stage.ready()
    stage.drain("b", notice_s=60.0)
    stage.ready()
    stage.wait_alive(1.0)
    assert {member.host for member in stage.assignment.members} == {"a", "c"}
    assert [stop.worker for stop in stage.all(Stop)] == ["w2"]
    assert not [kill for kill in stage.all(Kill) if kill.worker == "w1"]
    stage.exit("w2", code=0)
    assert isinstance(stage.supervisor.state, Running)


def test_the_last_survivor_goes_on_although_its_host_is_set_aside() -> None:
    sizes = Sizes(min=2, max=2, fewest_survivors=1, keep_s=5.0, grow_within_s=5.0)
    settings = Settings(sizes=sizes, standbys=0, hosts=HostLimits(failures=1), reform=True)
    stage = running(settings, a=2)
    stage.join(**{f"b{number}": 1 for number in range(20)})
    stage.progress(100)
    stage.exit("w2", signal=SIGKILL)
    assert "a failed repeatedly and is set aside for 600 s" in stage.texts
    assert stage.members == ["w1"], "nobody else has its state, and nobody else is ready"
    stage.progress(200)
    stage.ready()  # others, elsewhere
    stage.wait_alive(60.0)
    assert [stop.worker for stop in stage.all(Stop)] == ["w1"], "it saves, and the others take over"
    stage.snapshot("a", 260)
    stage.exit("w1", code=0)
    assert [member.host for member in stage.assignment.members] == ["b0", "b1"]
    assert stage.assignment.restore == SnapshotPlace(260, "a")


@pytest.mark.parametrize("reform", [True, False])
def test_one_of_two_hosts_is_set_aside_only_where_the_state_is_not_in_their_memory(reform) -> None:
    sizes = Sizes(min=1, max=2, replace_within_s=1.0, keep_s=1.0, grow_within_s=1.0)
    stage = running(Settings(sizes=sizes, standbys=0, budgets=Budgets(failures=100), reform=reform), a=1, b=1)
    for _ in range(5):
        stage.exit(next(member.worker for member in stage.assignment.members if member.host == "a"), signal=SIGKILL)
        for _ in range(20):
            stage.bury()
            stage.ready()
            stage.progress(100)
            stage.wait_alive(1.0)
    assert any("a failed repeatedly and is set aside" in text for text in stage.texts) == (not reform)


def test_survivors_on_a_host_that_leaves_go_on_until_others_are_ready() -> None:
    stage = running(replace(TWO, reform=True, sizes=Sizes(min=2, max=2, fewest_survivors=1), standbys=0), a=1, b=1)
    stage.drain("a", notice_s=60.0)
    stage.exit("w2", signal=SIGKILL)
    assert stage.members == ["w1"], "its state is the newest, for as long as it lives"


def test_without_survivors_the_next_generation_waits_for_the_last_exit() -> None:
    stage = running(replace(TWO, reform=True, sizes=Sizes(min=1, max=1)), a=1, b=1)
    stage.wait_alive(20.0, "w1")
    assert "w1" in workers_of(stage.commands, Kill)
    stage.ready()
    assert stage.supervisor.generation == 1, "frozen is not dead: it may wake up and act"
    stage.bury()
    assert stage.supervisor.generation == 2


def test_a_process_that_cannot_be_killed_does_not_cost_its_host_while_others_train_there() -> None:
    stage = running(replace(TWO, reform=True), a=2)
    stage.wait_alive(20.0, "w1")
    stage.ready()
    assert stage.supervisor.generation == 2 and "w1" in workers_of(stage.commands, Kill)
    for step in range(100):
        stage.progress(step)
        stage.wait_alive(1.0, "w1")
    assert not stage.all(ReleaseHost) and stage.supervisor.generation == 2


def test_members_have_no_longer_than_the_notice_to_save() -> None:
    stage = running(Settings(sizes=Sizes(min=2, max=2), standbys=0), a=1, b=1)
    stage.drain("b", notice_s=10.0)
    assert not stage.all(Kill)
    stage.wait_alive(10.0)
    assert workers_of(stage.commands, Kill) == ["w1", "w2"]


def test_a_left_host_is_given_back_once() -> None:
    stage = running(Settings(standbys=1), a=1, b=1)
    stage.drain("a", notice_s=600.0)
    stage.ready()
    stage.exit("w1", code=0)
    stage.ready()
    for step in range(5):
        stage.progress(step)
        stage.wait_alive(1.0)
    assert stage.all(ReleaseHost) == [ReleaseHost("a")]
