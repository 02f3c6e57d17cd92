"""From hosts to a generation."""

from cluster.supervisor.commands import Finish, Form, Kill, StartWorker
from cluster.supervisor.settings import Budgets, Patience, Settings, Sizes
from cluster.supervisor.states import Ended, Gathering, Running, Waiting
from tests.cluster.supervisor.stage import SIGKILL, Stage, of, running, user_error, workers_of


def test_hosts_that_come_together_share_the_workers() -> None:
    stage = Stage(Settings(sizes=Sizes(min=2, max=2), standbys=1))
    commands = stage.join(a=2, b=2)
    assert commands == [StartWorker("w1", "a"), StartWorker("w2", "b"), StartWorker("w3", "a")]


def test_a_generation_is_formed_as_soon_as_enough_are_ready() -> None:
    stage = Stage(Settings(sizes=Sizes(min=2, max=2), standbys=0))
    stage.join(a=1, b=1)
    assert stage.ready("w2") == []
    forms = of(Form, stage.ready("w1"))
    assert [(form.worker, form.assignment.rank) for form in forms] == [("w1", 0), ("w2", 1)]
    assert forms[0].assignment.members == forms[1].assignment.members
    assert forms[0].assignment.restore is None
    assert [member.address for member in forms[0].assignment.members] == ["a:1", "b:1"]
    assert stage.last_words == "generation 1 starts with 2 workers on a, b"


def test_a_host_carries_no_more_members_than_it_has_slots() -> None:
    stage = Stage(Settings(sizes=Sizes(min=2, max=2), standbys=2))
    stage.join(a=1)
    assert [command.host for command in stage.all(StartWorker)] == ["a", "a", "a"]
    stage.ready()
    assert isinstance(stage.supervisor.state, Gathering), "three are ready, and only one of them may act"
    stage.join(b=1)
    stage.ready()
    assert [member.host for member in stage.assignment.members] == ["a", "b"]


def test_fewer_workers_are_taken_when_no_more_come_in_time() -> None:
    stage = Stage(Settings(sizes=Sizes(min=1, max=4, gather_s=10.0), standbys=0))
    stage.join(a=2)
    stage.ready()
    assert not of(Form, stage.wait_alive(9.0))
    assert len(of(Form, stage.wait_alive(1.0))) == 2


def test_workers_that_are_being_started_are_waited_for_before_a_generation_gets_smaller() -> None:
    sizes = Sizes(min=1, max=2, gather_s=5.0, replace_within_s=5.0)
    stage = Stage(Settings(sizes=sizes, standbys=0, patience=Patience(start_s=40.0)))
    stage.join(a=1, b=1)
    stage.ready("w1")
    assert not of(Form, stage.wait_alive(30.0, "w2")), "the second one is not ready yet"
    stage.ready("w2")
    assert len(stage.members) == 2
    stage.lose("b")
    stage.bury()  # and a new one is started on a
    stage.ready()
    assert not of(Form, stage.wait_alive(4.0))
    assert len(of(Form, stage.wait_alive(1.0))) == 1, "nobody is being started who could make it two"


def test_a_start_that_takes_for_ever_holds_nobody_up_for_longer_than_a_start_may_take() -> None:
    stage = Stage(Settings(sizes=Sizes(min=1, max=2, gather_s=5.0), standbys=0, patience=Patience(start_s=20.0)))
    stage.join(a=1, b=1)
    stage.ready("w1")
    assert not of(Form, stage.wait_alive(19.0))
    assert len(of(Form, stage.wait_alive(1.0))) == 1


def test_only_sizes_that_divide_the_virtual_workers_are_formed() -> None:
    stage = Stage(Settings(sizes=Sizes(min=1, max=4, divides=4, gather_s=5.0), standbys=0))
    stage.join(a=3)
    stage.ready()
    stage.wait_alive(5.0)
    assert len(stage.members) == 2


def test_a_run_without_enough_hosts_says_so_and_waits() -> None:
    stage = Stage(Settings(sizes=Sizes(min=2, max=2, gather_s=5.0), standbys=0))
    stage.join(a=1)
    stage.wait(5.0)
    assert isinstance(stage.supervisor.state, Waiting)
    assert stage.last_words == "2 workers are needed and the hosts have room for 1: the run waits for hosts"
    stage.join(b=1)
    stage.ready()
    assert isinstance(stage.supervisor.state, Running)


def test_a_run_that_may_not_wait_for_ever_ends_without_resources() -> None:
    settings = Settings(sizes=Sizes(min=2, max=2, gather_s=5.0), standbys=0, patience=Patience(resources_s=20.0))
    stage = Stage(settings)
    stage.join(a=1)
    stage.wait(25.0)
    assert stage.bury() == [Finish("no_resources", stage.outcome.reason)]
    assert stage.outcome.reason.startswith("no host offered enough room for 20 s: 2 workers are needed")


def test_a_worker_that_does_not_get_ready_is_killed_and_started_anew() -> None:
    stage = Stage(Settings(standbys=0, patience=Patience(start_s=20.0)))
    stage.join(a=1)
    assert of(Kill, stage.wait(21.0)) == [Kill("w1", "it was not ready after 21 s")]
    stage.bury()
    stage.wait(1.0)
    assert stage.all(StartWorker)[-1] == StartWorker("w2", "a")


def test_a_host_where_nothing_starts_is_left_to_the_others() -> None:
    stage = Stage(Settings(sizes=Sizes(min=1, max=1), standbys=0, budgets=Budgets(failures=0)))
    stage.join(a=1, b=1)
    for number in range(1, 4):
        assert stage.all(StartWorker)[-1] == StartWorker(f"w{number}", "a")
        stage.exit(f"w{number}", code=1)
        stage.wait(3.0)
    assert stage.all(StartWorker)[-1] == StartWorker("w4", "b")
    assert "a failed repeatedly and is set aside for 600 s" in stage.texts
    stage.ready("w4")
    assert stage.assignment.chief.host == "b"


def test_starts_that_fail_on_the_only_host_spend_the_budget() -> None:
    stage = Stage(Settings(standbys=0, budgets=Budgets(failures=2)))
    stage.join(a=1)
    while not stage.outcome:
        for worker in list(stage.alive):
            stage.exit(worker, code=1)
        stage.wait(1.0)
    assert len(stage.all(StartWorker)) == 5, "two are the host's, two the run's, and the fifth is one too many"
    assert stage.outcome == Finish(
        "failed",
        "standby w5 on a ended with exit code 1, and all 2 allowed failures without sustained progress in between are "
        "used up",
    )


def test_code_that_cannot_be_imported_ends_the_run_at_its_second_try() -> None:
    stage = Stage(Settings(standbys=0))
    stage.join(a=1)
    stage.exit("w1", code=1, error=user_error(0, "no module named flights"))
    stage.wait(2.0)
    stage.exit("w2", code=1, error=user_error(0, "no module named flights"))
    assert isinstance(stage.supervisor.state, Ended)
    assert stage.outcome.reason.startswith("Traceback")
    assert "standby w2 on a raised ValueError at step 0: no module named flights" in stage.outcome.reason


def test_the_next_generation_waits_for_as_many_as_the_last_had_then_shrinks() -> None:
    stage = running(Settings(sizes=Sizes(min=1, max=2, replace_within_s=30.0), standbys=0), a=1, b=1)
    stage.lose("b")
    stage.bury()
    stage.wait_alive(1.0)
    stage.ready()
    assert not of(Form, stage.wait_alive(28.0))
    stage.wait_alive(1.0)
    assert stage.assignment.generation == 2 and len(stage.members) == 1
    assert stage.last_words == "generation 2 goes on with 1 worker instead of 2 on a from the newest checkpoint"


def test_standbys_beyond_the_need_are_ended() -> None:
    stage = running(Settings(standbys=1), a=1, b=1)
    assert len(stage.alive) == 2
    stage.exit("w1", signal=9)
    stage.bury()
    stage.ready()
    stage.wait_alive(5.0)
    assert len(stage.alive) == 2


def test_a_host_set_aside_is_taken_back_when_the_run_cannot_do_without_it() -> None:
    stage = Stage(Settings(sizes=Sizes(min=1, max=1), standbys=0))
    stage.join(a=1, b=1)
    for _ in range(3):
        stage.exit(stage.all(StartWorker)[-1].worker, code=1)
        stage.wait(3.0)
    stage.lose("b")
    stage.wait(1.0)
    assert "a was set aside and is used again, because the run cannot do without it" in stage.texts
    assert stage.all(StartWorker)[-1].host == "a"


def test_standbys_that_do_not_start_cost_a_training_run_nothing() -> None:
    stage = running(Settings(standbys=1, budgets=Budgets(failures=0)), a=1)
    for _ in range(10):
        for worker in list(stage.alive):
            if worker != "w1":
                stage.exit(worker, code=1)
        stage.wait_alive(10.0)
        stage.progress(int(stage.now))
    assert isinstance(stage.supervisor.state, Running) and len(stage.all(StartWorker)) >= 5


def test_standbys_that_nobody_waits_for_start_when_the_generation_trains() -> None:
    settings = Settings(sizes=Sizes(min=2, max=2), standbys=2, patience=Patience(spare_s=60.0))
    stage = Stage(settings)
    assert workers_of(stage.join(a=2), StartWorker) == ["w1", "w2"]
    stage.ready("w1", "w2")
    assert not workers_of(stage.wait_alive(5), StartWorker)
    stage.progress(0, "compile")
    stage.progress(10)
    assert workers_of(stage.wait_alive(1), StartWorker) == ["w3", "w4"]
    stage.ready("w3", "w4")
    # The next generation needs nobody else, and forms in peace.
    assert not workers_of(stage.exit("w1", signal=SIGKILL), StartWorker)
    assert workers_of(stage.exit("w2", signal=SIGKILL), Form) == ["w3", "w4"]
    assert not workers_of(stage.wait_alive(5), StartWorker)
    stage.progress(10, "compile")
    stage.progress(20)
    assert workers_of(stage.wait_alive(1), StartWorker) == ["w5", "w6"]


def test_a_generation_that_takes_long_to_begin_gets_its_standbys_all_the_same() -> None:
    stage = Stage(Settings(sizes=Sizes(min=1, max=1), standbys=1, patience=Patience(spare_s=30.0)))
    stage.join(a=1)
    stage.ready("w1")
    assert not workers_of(stage.wait_alive(29), StartWorker)
    assert workers_of(stage.wait_alive(2), StartWorker) == ["w2"]
