"""A generation at work: failures, errors, the end."""

import pytest

from cluster.assignment import ErrorReport, SnapshotPlace
from cluster.supervisor.commands import Finish, Form, Kill, StartWorker
from cluster.supervisor.events import Heartbeat, HostLost, Progressed
from cluster.supervisor.settings import BackOff, Budgets, Patience, Settings, Sizes
from cluster.supervisor.states import Ended, Ending, Gathering, Running, Stopping
from tests.cluster.supervisor.stage import SIGKILL, SIGTERM, of, running, user_error, workers_of

TWO = Settings(sizes=Sizes(min=2, max=2), standbys=1)


def test_what_a_member_says_before_its_state_is_there_is_no_progress() -> None:
    stage = running(TWO, a=1, b=1)
    stage.progress(40)
    stage.exit("w1", signal=SIGKILL)
    stage.bury()
    stage.ready()
    stage.progress(0, "build")
    stage.progress(0, "restore")
    assert stage.supervisor._run.progress.start_step is None
    stage.progress(20, "compile")
    assert stage.supervisor._run.progress.start_step == 20


def test_a_killed_member_ends_the_generation_and_the_standby_steps_up() -> None:
    stage = running(TWO, a=2, b=2)
    stage.progress(480)
    stage.snapshot("a", 480)
    stage.snapshot("b", 480)
    commands = stage.exit("w2", signal=SIGKILL)
    assert workers_of(commands, Kill) == ["w1"], "the survivor is stopped at once"
    assert of(StartWorker, commands), "and replacements are started at once"
    assert stage.last_words == (
        "worker 1 on b was killed (SIGKILL): generation 2 goes on from step 480 in the memory of a"
    )
    assert isinstance(stage.supervisor.state, Ending)
    assert not of(Form, stage.ready()), "nothing is formed while a member of the old generation may act"
    assert [form.assignment.restore for form in of(Form, stage.bury())] == [SnapshotPlace(480, "a")] * 2
    assert stage.assignment.generation == 2 and "w3" in stage.members


def test_a_lost_host_takes_its_snapshot_along() -> None:
    stage = running(TWO, a=2, b=2)
    stage.progress(480)
    stage.snapshot("a", 480)
    stage.snapshot("b", 470)
    stage.lose("a")
    assert stage.last_words == (
        "a was lost (it does not answer) with worker 0 and standby w3: "
        "generation 2 goes on from step 470 in the memory of b"
    )
    stage.wait(1.0)
    stage.ready()
    stage.bury()
    assert stage.assignment.restore == SnapshotPlace(470, "b")


def test_failures_without_progress_are_spaced_out_and_end_when_the_budget_does() -> None:
    settings = Settings(standbys=0, budgets=Budgets(failures=3), back_off=BackOff(first_s=4.0, longest_s=6.0))
    stage = running(settings, a=1)
    stage.progress(10)
    delays = []
    for _ in range(3):
        stage.exit(stage.members[0], code=1)
        failed_at = stage.now
        while stage.supervisor.generation == len(delays) + 1:
            stage.wait_alive(1.0)
            stage.ready()
        delays.append(stage.now - failed_at)
    assert delays == [1.0, 4.0, 6.0], "a tick for the start, then the back-off and its bound"
    stage.exit(stage.members[0], code=1)
    assert stage.outcome == Finish(
        "failed",
        "worker 0 on a ended with exit code 1, "
        "and all 3 allowed failures without sustained progress in between are used up",
    )


def test_budgets_are_given_back_after_sustained_progress() -> None:
    settings = Settings(standbys=0, budgets=Budgets(failures=1, give_back_after_s=100.0))
    stage = running(settings, a=1)
    for failure in range(4):
        stage.progress(100 * failure)
        stage.exit(stage.members[0], code=1)
        stage.wait_alive(1.0)
        stage.ready()
        stage.progress(100 * failure + 100)
        stage.wait_alive(110.0)
    assert stage.outcome is None and stage.supervisor.generation == 5


def test_the_same_user_error_at_the_same_step_ends_the_run() -> None:
    stage = running(Settings(standbys=1), a=1)
    stage.exit("w1", code=1, error=user_error(40, "bad sample <Sample at 0x7f01>"))
    stage.ready()
    assert stage.supervisor.generation == 2
    stage.exit(stage.members[0], code=1, error=user_error(40, "bad sample <Sample at 0x7f02>"))
    stage.bury()
    assert stage.outcome.outcome == "failed"
    assert stage.outcome.reason == (
        "Traceback (most recent call last):\nValueError: bad sample <Sample at 0x7f02>\n"
        "worker 0 on a raised ValueError at step 40: bad sample <Sample at 0x7f02>, for the second time at this step"
    )


def test_ranks_that_raise_the_same_error_together_have_raised_it_once() -> None:
    stage = running(TWO, a=2)
    stage.now += 1.0
    stage.exit("w1", code=1, error=user_error(40))
    stage.now += 0.1
    stage.exit("w2", code=1, error=user_error(40))
    assert isinstance(stage.supervisor.state, Gathering)
    stage.ready()
    assert stage.supervisor.generation == 2
    # The rank that has the error may be heard after a peer that it took along.
    peer_error = ErrorReport("UnavailableError", "connection reset", "", 40, is_user_error=False)
    stage.exit(stage.members[0], code=1, error=peer_error)
    stage.exit(stage.members[1], code=1, error=user_error(40))
    assert isinstance(stage.supervisor.state, Stopping | Ended)


@pytest.mark.parametrize("member_exits_by", ["signal", "notice"])
def test_preemptions_have_a_budget_of_their_own(member_exits_by: str) -> None:
    stage = running(Settings(standbys=1, budgets=Budgets(failures=0, preemptions=1)), a=1, b=1)
    if member_exits_by == "signal":
        stage.exit("w1", signal=SIGTERM)
    else:
        stage.drain("a", notice_s=2.0)
        stage.exit("w1", signal=SIGKILL)
    stage.wait(1.0)
    stage.ready()
    assert stage.supervisor.generation == 2
    stage.exit(stage.members[0], signal=SIGTERM)
    assert isinstance(stage.supervisor.state, Stopping | Ended)
    stage.bury()
    assert "the one allowed preemption" in stage.outcome.reason


def test_a_snapshot_that_cannot_be_restored_is_not_tried_again() -> None:
    stage = running(TWO, a=2, b=2)
    stage.progress(20)
    stage.snapshot("a", 20)
    stage.snapshot("b", 10)
    stage.exit("w1", signal=SIGKILL)
    stage.ready()
    stage.bury()
    assert stage.assignment.restore == SnapshotPlace(20, "a")
    stage.progress(0, "restore")
    error = ErrorReport("RestoreError", "damaged", "", 0, is_user_error=False)
    stage.exit(stage.members[0], code=1, error=error)
    assert "the snapshot of step 20 in the memory of a could not be restored" in stage.texts
    stage.ready()
    stage.bury()
    stage.wait_alive(2.0)
    assert stage.assignment.generation == 3 and stage.assignment.restore == SnapshotPlace(10, "b")


def test_a_complete_checkpoint_is_preferred_to_an_older_snapshot() -> None:
    stage = running(Settings(standbys=1), a=1, b=1)
    stage.snapshot("b", 10)
    stage.durable(40)
    stage.exit("w1", signal=SIGKILL)
    stage.ready()
    assert stage.assignment.generation == 2 and stage.assignment.restore is None


def test_a_checkpoint_that_was_not_heard_to_be_durable_does_not_count() -> None:
    stage = running(Settings(standbys=1), a=1, b=1)
    stage.snapshot("b", 10)
    stage.progress(40, "checkpoint")
    stage.now += 0.1
    stage.progress(40, "step")
    stage.exit("w1", signal=SIGKILL)
    stage.ready()
    assert stage.assignment.generation == 2 and stage.assignment.restore == SnapshotPlace(10, "b")


def test_a_checkpoint_that_was_lost_does_not_stand_in_the_way_of_newer_snapshots() -> None:
    stage = running(Settings(standbys=1), a=1, b=1)
    stage.durable(40)
    stage.exit("w1", signal=SIGKILL)
    stage.ready()
    assert stage.assignment.generation == 2 and stage.assignment.restore is None
    for phase in ("restore", "compile", "step"):
        stage.progress(20, phase)  # what the workers found in place of step 40
    stage.snapshot("b", 30)
    stage.exit(stage.members[0], signal=SIGKILL)
    stage.ready()
    stage.wait_alive(3.0)
    assert stage.assignment.generation == 3 and stage.assignment.restore == SnapshotPlace(30, "b")


def test_the_run_is_finished_when_the_chief_says_so_and_all_have_ended() -> None:
    stage = running(TWO, a=2)
    stage.progress(500)
    stage.complete("w2", 500)
    assert stage.exit("w2", code=0) == []
    assert workers_of(stage.complete("w1", 500), Kill) == ["w3"], "standbys are not needed any more"
    stage.bury()
    assert stage.outcome is None
    assert stage.exit("w1", code=0) == [Finish("finished", "the training is complete at step 500")]


def test_members_that_do_not_end_after_the_training_are_killed() -> None:
    stage = running(Settings(standbys=0, patience=Patience(finish_s=30.0)), a=1)
    stage.complete("w1", 500)
    assert not of(Kill, stage.wait_alive(29.0))
    assert of(Kill, stage.wait_alive(1.0))
    stage.bury()
    assert stage.outcome.outcome == "finished"


def test_an_exit_before_the_word_of_completion_is_given_a_moment() -> None:
    stage = running(Settings(standbys=0), a=1)
    stage.exit("w1", code=0)
    assert isinstance(stage.supervisor.state, Running)
    assert stage.complete("w1", 500)[-1] == Finish("finished", "the training is complete at step 500")
    stage = running(Settings(standbys=0), a=1)
    stage.exit("w1", code=0)
    stage.wait(2.0)
    assert "worker 0 on a ended with exit code 0 before the training was complete: generation 2" in stage.texts[-1]


def test_the_end_is_believed_though_the_chiefs_word_is_lost() -> None:
    stage = running(TWO, a=2)
    stage.exit("w1", code=0)
    stage.complete("w2", 500)
    stage.exit("w2", code=0)
    stage.bury()
    assert stage.outcome.outcome == "finished"


def test_late_and_unknown_messages_change_nothing() -> None:
    stage = running(TWO, a=2, b=2)
    stage.progress(10)
    state = stage.supervisor.state
    assert stage.say(Progressed(stage.now, "w1", 0, 99, "step")) == []
    assert stage.say(Progressed(stage.now, "w99", 1, 99, "step")) == []
    stage.hosts["w99"] = "a"
    assert stage.exit("w99", code=1) == []
    assert workers_of(stage.ready("w99"), Kill) == ["w99"], "nobody ordered it"
    stage.ready("w1")
    assert stage.supervisor.state == state
    stage.exit("w1", signal=SIGKILL)
    assert stage.exit("w1", signal=SIGKILL) == []
    assert stage.supervisor.generation == 1


def test_news_of_a_loss_that_the_host_has_survived_are_passed_over() -> None:
    stage = running(TWO, a=2)
    stage.now = 10.0
    stage.join(a=2)
    assert stage.say(HostLost(5.0, "a", "it did not answer")) == []
    assert isinstance(stage.supervisor.state, Running)


def test_a_worker_that_was_counted_lost_and_lives_is_killed() -> None:
    stage = running(Settings(standbys=0), a=1, b=1)
    stage.lose("a")
    assert workers_of(stage.say(Heartbeat(stage.now, "w1")), Kill) == ["w1"]
