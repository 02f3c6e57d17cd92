import pytest

from cluster.assignment import ErrorReport
from tests.trainer.goodput.journals import EPOCH, Story
from trainer.goodput.account import Account
from trainer.goodput.reading import account_of
from trainer.goodput.sentence import sentence


def account(story: Story, spans: dict | None = None, until: float | None = None) -> Account:
    found = account_of(story.records, spans or {}, until)
    assert sum(found.seconds.values()) == pytest.approx(found.wall_s)
    return found


def about(**seconds: float) -> object:
    return pytest.approx(seconds, abs=0.02)


def recover(story: Story, at: float, restore: int | None, *workers: str) -> None:
    """Two standbys go on `at`: half a second each to form, to build, to restore, and one for the first ten steps."""
    story.form(*workers, restore=restore)
    story.report(at + 0.5, 0, "build")
    story.report(at + 1.0, restore or 0, "restore")
    story.report(at + 1.5, restore or 0, "compile")
    story.report(at + 2.5, (restore or 0) + 10, "step")


def test_a_run_without_trouble() -> None:
    story = Story()
    story.begin()
    story.report(10.0, 80, "evaluate")
    story.report(12.0, 80, "step")
    story.report(14.0, 100, "checkpoint")
    story.complete(15.0, 100)
    story.exit(15.5, "w1")
    story.exit(15.5, "w2")
    story.finish()
    found = account(story)
    assert found.seconds == about(startup=2, compile=1, productive=9, evaluate=2, checkpoint=1, closing=0.5)
    assert (found.steps, found.failures, found.goodput) == (100, (), pytest.approx(9 / 15.5, abs=0.01))
    assert found.began == pytest.approx(EPOCH, abs=0.02)


def test_a_killed_worker_is_one_row_with_what_it_cost() -> None:
    story = Story()
    story.begin()
    story.start("w3", "w4")
    story.ready(9.0, "w3", "w4")
    story.exit(11.0, "w2", signal=9)
    story.kill("w1", "generation 1 is broken")
    story.exit(11.25, "w1", signal=9)
    recover(story, 11.25, 60, "w3", "w4")
    story.report(20.0, 200, "step")
    found = account(story)
    (row,) = found.failures
    assert (row.cause, row.what) == ("failure", "worker 1 on a was killed (SIGKILL)")
    assert (row.rank, row.worker, row.host, row.signal, row.generation) == (1, "w2", "a", 9, 1)
    assert (row.steps_lost, row.resumed_step, row.source, row.is_over) == (20, 60, "memory", True)
    # Step 60 was complete at 8: ten steps a second from step 10 at 3.
    assert row.lost_s == pytest.approx(3.0, abs=0.02)
    assert row.phases == about(
        restart_ended=0.25, restart_formed=0.5, restart_built=0.5, restart_restored=0.5, restart_first_step=1.0
    )
    assert row.at == pytest.approx(EPOCH + 11, abs=0.02)
    assert found.seconds["productive"] == pytest.approx(5 + 20 - 13.75, abs=0.02)
    assert found.seconds["lost"] == pytest.approx(row.lost_s)
    assert found.failure_cost_s == pytest.approx(row.down_s + row.lost_s)


def test_of_a_hang_the_time_since_the_last_step_is_detection_and_not_lost_work() -> None:
    story = Story()
    story.begin()
    story.tick(25.0)
    story.kill("w2", "it has made no progress for 15 s at step 80 (15 s allowed)")
    story.kill("w1", "generation 1 is broken")
    story.exit(25.1, "w1", signal=9)
    story.exit(25.1, "w2", signal=9)
    story.start("w3", "w4")
    story.ready(27.1, "w3", "w4")
    recover(story, 27.1, 80, "w3", "w4")
    (row,) = account(story).failures
    assert (row.cause, row.rank, row.steps_lost) == ("hang", 1, 0)
    assert row.lost_s == pytest.approx(0, abs=0.02)
    assert row.phases["detection"] == pytest.approx(15.0, abs=0.02)
    assert row.phases["restart_standby"] == pytest.approx(2.0, abs=0.02)


def test_a_lost_host_is_waited_for() -> None:
    story = Story()
    story.begin()
    story.lose_host(12.0)
    story.tick(13.0)
    story.tick(30.0)
    story.start("w3", "w4")
    story.ready(31.0, "w3", "w4")
    recover(story, 31.0, None, "w3", "w4")
    found = account(story)
    (row,) = found.failures
    assert (row.cause, row.host, row.rank, row.source) == ("host", "a", 0, "checkpoint")
    assert row.what == "a was lost (it does not answer) with workers 0, 1"
    assert row.phases == about(
        detection=2, resources=18, restart_standby=1, restart_formed=0.5, restart_built=0.5, restart_restored=0.5,
        restart_first_step=1,
    )  # fmt: skip
    # Without a snapshot all that was done from the beginning is done again.
    assert (row.steps_lost, found.seconds["lost"]) == (80, pytest.approx(7.0, abs=0.02))


def test_a_failure_while_another_is_mended_begins_a_row_of_its_own() -> None:
    story = Story()
    story.begin()
    story.start("w3", "w4", "w5", "w6")
    story.ready(9.0, "w3", "w4", "w5", "w6")
    story.exit(10.0, "w2", signal=9)
    story.exit(10.0, "w1", signal=9)
    story.form("w3", "w4", restore=80)
    story.report(10.5, 80, "restore")
    broken = ErrorReport("OSError", "no memory", "", 80, is_user_error=False)
    story.exit(11.0, "w3", code=1, error=broken)
    story.exit(11.0, "w4", signal=9)
    story.tick(13.0)
    recover(story, 13.0, 80, "w5", "w6")
    first, second = account(story).failures
    assert first.phases == about(restart_formed=0.5, restart_restored=0.5)
    assert (second.error, second.what) == ("OSError", "worker 0 on a raised OSError")
    assert second.phases["restart_back_off"] == pytest.approx(2.0, abs=0.02)
    assert (first.steps_lost, second.steps_lost, second.resumed_step) == (None, 0, 80)


def test_what_was_done_twice_is_lost_once() -> None:
    story = Story()
    story.begin()
    story.start("w3", "w4", "w5", "w6")
    story.ready(9.0, "w3", "w4", "w5", "w6")
    story.exit(10.0, "w1", signal=9)
    story.exit(10.0, "w2", signal=9)
    recover(story, 10.0, 60, "w3", "w4")  # ten steps until 12.5
    story.report(13.5, 80, "step")
    story.exit(13.5, "w3", signal=9)
    story.exit(13.5, "w4", signal=9)
    recover(story, 13.5, 60, "w5", "w6")
    story.report(17.0, 90, "step")
    found = account(story)
    assert [row.steps_lost for row in found.failures] == [20, 20]
    assert [row.lost_s for row in found.failures] == [pytest.approx(2, abs=0.02), pytest.approx(1, abs=0.02)]
    assert found.seconds["productive"] == pytest.approx(5 + 1, abs=0.02)


def test_a_planned_hand_over_loses_nothing() -> None:
    story = Story()
    story.begin()
    story.start("w3", "w4")
    story.ready(9.0, "w3", "w4")
    story.drain(10.0)
    story.stop("w1", "generation 2 takes over")
    story.stop("w2", "generation 2 takes over")
    story.report(11.0, 90, "checkpoint")
    story.exit(12.0, "w1")
    story.exit(12.0, "w2")
    recover(story, 12.0, 90, "w3", "w4")
    found = account(story)
    (row,) = found.failures
    assert (row.cause, row.steps_lost, row.lost_s) == ("preemption", 0, 0.0)
    assert row.phases["restart_ended"] == pytest.approx(1.0, abs=0.02)
    assert "lost" not in found.seconds


def one_of_two_killed() -> Story:
    """At 10 seconds; w1 survives, and w3 is ready."""
    story = Story(reform=True)
    story.begin()
    story.start("w3")
    story.ready(9.0, "w3")
    story.exit(10.0, "w2", signal=9)
    return story


def test_survivors_that_go_on_need_no_end() -> None:
    story = one_of_two_killed()
    story.tick(10.1)
    story.form("w1", "w3")
    story.report(10.2, 80, "step")
    story.report(11.0, 90, "step")
    (row,) = account(story).failures
    assert row.down_s == pytest.approx(0.2, abs=0.02)
    assert "restart_ended" not in row.phases
    assert (row.source, row.steps_lost) == ("memory", 0)


def test_a_survivor_that_is_ready_waits_for_who_joins_it() -> None:
    story = one_of_two_killed()
    story.form("w1", "w3")
    story.tell(10.1, "w1", 80, "restore")
    story.tell(10.2, "w1", 80, "step")
    story.tell(10.2, "w3", 0, "restore")
    story.tell(10.5, "w3", 80, "step")
    story.tell(11.0, "w1", 90, "step")
    story.tell(11.0, "w3", 90, "step")
    found = account(story)
    assert found.failures[0].phases == about(restart_formed=0.2, restart_restored=0.3)
    assert "startup" not in found.seconds or found.seconds["startup"] == pytest.approx(2, abs=0.02)


def test_a_launcher_that_died_and_a_person_who_paused() -> None:
    story = Story()
    story.begin()
    again = Story(at=100.0)
    again.start("w1", "w2")
    again.ready(101.0, "w1", "w2")
    again.form("w1", "w2")
    again.report(102.0, 0, "restore")
    again.report(102.0, 50, "compile")
    again.report(103.0, 60, "step")
    again.ask_to_stop(104.0)
    again.report(104.0, 70, "checkpoint")
    again.exit(105.0, "w1")
    again.exit(105.0, "w2")
    again.finish("stopped")
    later = Story(at=5_000.0)
    later.start("w1", "w2")
    later.ready(5_001.0, "w1", "w2")
    story.records += again.records + later.records
    found = account(story)
    (row,) = found.failures
    assert (row.cause, row.steps_lost) == ("launcher", 30)
    assert row.phases["restart_down"] == pytest.approx(90.0, abs=0.05)
    assert found.paused_s == pytest.approx(5_000 - 105, abs=0.05)
    assert found.wall_s == pytest.approx(106.0, abs=0.05)
    assert found.seconds["startup"] == pytest.approx(3.0, abs=0.05)


def test_a_roll_back_is_lost_work() -> None:
    story = Story()
    story.begin()
    story.worker_event(10.0, "rolled_back", step=60, from_step=80, reason="the loss is NaN")
    story.report(12.0, 80, "step")
    found = account(story)
    (row,) = found.failures
    assert (row.cause, row.steps_lost, row.what) == ("bad step", 20, "the loss is NaN")
    assert found.seconds["lost"] == pytest.approx(2.0, abs=0.05)


def test_steps_that_wait_are_told_apart_by_the_rank_that_waited_longest() -> None:
    story = Story()
    story.begin()
    story.worker_event(9.0, "checkpoint_saved", step=50, stall=0.25, duration=1.0)

    def span(name: str, start: float, seconds: float, **more: float) -> dict:
        return {"name": name, "start": EPOCH + start, "duration": seconds, **more}

    spans = {
        # The first lies before the first step, and half of the bundle too.
        0: [span("data", 1.8, 0.1), span("data", 4, 0.5), span("snapshot_stall", 5, 0.1)],
        1: [span("data", 2.0, 1.0, end=EPOCH + 4.0, count=10), span("step", 4, 0.5)],
    }
    found = account(story, spans)
    assert found.seconds["data_wait"] == pytest.approx(0.5, abs=0.02)
    assert found.seconds["checkpoint"] == pytest.approx(0.35, abs=0.02)
    assert found.seconds["productive"] == pytest.approx(7 - 0.85, abs=0.03)


def test_a_run_that_goes_on_is_told_until_now() -> None:
    story = Story()
    story.begin()
    assert account(story, until=EPOCH + 12.0).seconds["productive"] == pytest.approx(9.0, abs=0.03)


def test_the_end_of_a_run_that_gives_up_is_no_further_failure() -> None:
    story = Story()
    story.begin()
    story.exit(10.0, "w2", signal=9)
    story.kill("w1", "the run ends")
    story.exit(10.5, "w1", signal=9)
    story.finish("failed")
    found = account(story)
    assert [row.worker for row in found.failures] == ["w2"]
    assert found.failures[0].steps_lost is None


def served(at: float = 0.0) -> Story:
    """A coordinator and the worker that serves it, ten steps a second from 3 to 10."""
    story = Story(at, replaceable_from=1)
    story.start("w1", "w2")
    story.ready(1.0, "w1", "w2")
    story.form("w1", "w2")
    story.tell(1.2, "w2", 0, "serve")
    for time, step, phase in ((1.5, 0, "restore"), (2.0, 0, "compile"), (3.0, 10, "step"), (10.0, 80, "step")):
        story.tell(time, "w1", step, phase)
    return story


def test_a_member_that_is_replaced_while_the_others_go_on_costs_no_time() -> None:
    story = served()
    story.start("w3")
    story.ready(10.5, "w3")
    story.exit(11.0, "w2", signal=9)
    story.step_in("w3", 1)
    story.tell(11.5, "w1", 95, "step")
    story.tell(12.0, "w3", 0, "build")
    story.tell(12.5, "w3", 0, "serve")
    story.tell(14.0, "w1", 120, "step")
    found = account(story)
    (row,) = found.failures
    assert (row.cause, row.what, row.is_over) == ("replacement", "worker 1 on a was killed (SIGKILL)", True)
    assert (row.replaced_s, row.steps_lost, row.cost_s) == (pytest.approx(1.5), 0, 0.0)
    assert (found.replacements, found.interruptions) == (1, ())
    assert found.seconds == about(startup=2, compile=1, productive=11)
    assert "1 worker was replaced while the others went on" in sentence(found)


def test_a_frozen_member_that_serves_is_replaced_as_well() -> None:
    story = served()
    story.tick(20.0)
    story.kill("w2", "has not been heard of for 10 s")
    story.tell(20.5, "w1", 100, "step")
    story.exit(21.0, "w2", signal=9)
    found = account(story)
    assert [(row.cause, row.replaced_s) for row in found.failures] == [("replacement", None)]
    assert "detection" not in found.seconds


def test_a_generation_that_cannot_go_on_without_a_member_that_serves_is_a_failure() -> None:
    story = served()
    story.exit(11.0, "w2", signal=9)
    story.kill("w1", "generation 1 is broken")
    story.exit(11.5, "w1", signal=9)
    story.start("w3", "w4")
    story.ready(12.0, "w3", "w4")
    story.form("w3", "w4", restore=60)
    story.tell(12.1, "w4", 0, "serve")  # before the coordinator has said from where it goes on
    story.tell(13.0, "w3", 60, "compile")
    story.tell(14.0, "w3", 70, "step")
    found = account(story)
    (row,) = found.failures
    assert (row.cause, row.rank, row.steps_lost, row.resumed_step) == ("failure", 1, 20, 60)
    assert found.replacements == 0
