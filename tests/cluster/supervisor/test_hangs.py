"""Members that hang, freeze or are slow."""

from dataclasses import replace

import pytest

from cluster.supervisor.commands import DumpStacks, Kill, StartWorker, Stop
from cluster.supervisor.events import Heartbeat
from cluster.supervisor.settings import HangLimits, Settings, Sizes
from cluster.supervisor.states import Running
from tests.cluster.supervisor.stage import SIGKILL, Stage, of, running, workers_of

TWO = Settings(sizes=Sizes(min=2, max=2), standbys=1)


def test_a_hung_member_is_named_then_stacks_are_dumped_then_it_is_killed() -> None:
    stage = running(TWO, a=1, b=1)
    for step in range(1, 20):
        stage.wait_alive(1.0)
        stage.progress(step)
    stage.progress(20, "step", "w1")
    commands = stage.wait_alive(31.0)
    assert of(DumpStacks, commands) == [DumpStacks("w1"), DumpStacks("w2")]
    assert not of(Kill, commands)
    assert stage.last_words == (
        "worker 1 on b has made no progress for 31 s at step 19 (30 s allowed): "
        "all members write their stacks to their logs"
    )
    commands = stage.wait_alive(2.0)
    assert workers_of(commands, Kill)[0] == "w2"
    assert "and is killed: generation 2 goes on" in stage.last_words


def test_a_member_that_wakes_up_in_time_is_spared() -> None:
    stage = running(TWO, a=1, b=1)
    for step in range(1, 20):
        stage.wait_alive(1.0)
        stage.progress(step)
    stage.wait_alive(31.0)
    assert stage.supervisor.state.suspicion
    stage.progress(20)
    assert not of(Kill, stage.wait_alive(5.0))
    assert stage.last_words == "the members make progress again, and nobody is killed"


def test_a_frozen_process_is_found_by_its_silence() -> None:
    stage = running(TWO, a=1, b=1)
    stage.wait_alive(16.0, "w2")
    assert stage.last_words.startswith("worker 1 on b has given no sign of life for 16 s")
    stage.wait_alive(2.0, "w2")
    assert "w2" in workers_of(stage.commands, Kill)


def test_a_frozen_standby_is_replaced_without_a_word_to_the_members() -> None:
    stage = running(TWO, a=2, b=2)
    commands = stage.wait_alive(17.0, "w3")
    assert workers_of(commands, Kill)[0] == "w3"
    assert len(of(StartWorker, commands)) == 1
    assert isinstance(stage.supervisor.state, Running)


@pytest.mark.parametrize("phase", ["compile", "evaluate", "checkpoint", "restore"])
def test_long_phases_are_not_mistaken_for_hangs(phase: str) -> None:
    stage = running(TWO, a=1, b=1)
    for step in range(1, 20):
        stage.wait_alive(1.0)
        stage.progress(step)
    stage.progress(19, phase, "w1")
    assert not of(DumpStacks, stage.wait_alive(300.0)), "worker 1 waits for worker 0"
    stage.progress(19, "step", "w1")
    assert not of(DumpStacks, stage.wait_alive(29.0)), "and has as long as ever from then on"
    assert of(DumpStacks, stage.wait_alive(3.0))


def test_a_member_that_never_takes_up_its_part_is_named() -> None:
    stage = running(TWO, a=1, b=1)
    stage.exit("w1", signal=SIGKILL)
    stage.bury()
    stage.wait_alive(1.0)
    stage.ready()
    stage.progress(0, "compile", stage.members[0])
    stage.wait_alive(121.0)
    assert "worker 1 on b has not taken up its part for 121 s (120 s allowed): all" in stage.last_words


def test_a_supervisor_that_was_away_accuses_nobody() -> None:
    stage = running(TWO, a=1, b=1)
    for step in range(1, 20):
        stage.wait_alive(1.0)
        stage.progress(step)
    stage.now += 3600.0
    commands = stage.wait_alive(1.0)
    assert not of(DumpStacks, commands) and not of(Kill, commands)


def test_of_members_at_one_step_the_one_that_has_not_done_its_own_part_is_named() -> None:
    stage = running(TWO, a=1, b=1)
    for step in range(1, 20):
        stage.wait_alive(1.0)
        stage.progress(step)
    # The slow one was heard last, and its peer has done its part of the twentieth step.
    stage.say(Heartbeat(stage.now, "w1", arrived=20, own_s=19.0))
    stage.say(Heartbeat(stage.now, "w2", arrived=19, own_s=19.0))
    stage.progress(19, "step", "w1")
    stage.wait_alive(31.0)
    assert "worker 1 on b has made no progress for 31 s at step 19 (30 s allowed)" in stage.last_words


def own_parts(stage: Stage, seconds: dict[str, float]) -> None:
    """A minute of steps that take a second for all, whatever each does in it."""
    for step in range(1, 60):
        stage.wait_alive(1.0)
        stage.progress(step)
        for worker, own_s in seconds.items():
            stage.say(Heartbeat(stage.now, worker, arrived=step, own_s=step * own_s))


def test_own_parts_show_a_straggler_for_whom_all_wait_in_every_step() -> None:
    stage = running(TWO, a=1, b=1)
    own_parts(stage, {"w1": 0.3, "w2": 0.9})
    assert [text for text in stage.texts if "slow" in text] == [
        "worker 1 on b is slow: it takes 3.0 times as long for a step as the others"
    ]
    stage = running(TWO, a=1, b=1)
    own_parts(stage, {"w1": 0.001, "w2": 0.003})
    assert not any("slow" in text for text in stage.texts), "two milliseconds are chance"


def test_an_evaluation_between_two_steps_makes_nobody_a_straggler() -> None:
    stage = running(TWO, a=1, b=1)
    own_s = 0.0
    for step in range(1, 60):
        stage.wait_alive(1.0)
        stage.progress(step)
        own_s += 8.0 if step % 10 == 0 else 0.3
        stage.say(Heartbeat(stage.now, "w1", arrived=step, own_s=step * 0.3))
        stage.say(Heartbeat(stage.now, "w2", arrived=step, own_s=own_s))
    assert not any("slow" in text for text in stage.texts)


def test_the_host_of_a_straggler_is_left_when_others_have_room() -> None:
    settings = replace(TWO, standbys=2, hangs=HangLimits(replace_stragglers=True))
    stage = running(settings, a=1, b=1)
    own_parts(stage, {"w1": 0.3, "w2": 0.9})
    assert not stage.all(Stop), "there is no other host"
    stage.join(c=1)
    stage.wait_alive(1.0)
    stage.ready()
    stage.wait_alive(1.0)
    assert {stop.worker for stop in stage.all(Stop)} == {"w1", "w2"}
    assert "b is slow and is set aside for 600 s" in stage.texts
    for worker in ("w1", "w2"):
        stage.exit(worker, code=0)
    stage.bury()
    stage.wait_alive(1.0)
    stage.ready()
    assert [member.host for member in stage.assignment.members] == ["a", "c"]


def test_a_straggler_is_announced_with_its_ratio() -> None:
    settings = replace(TWO, hangs=HangLimits(straggler_ratio=1.5))
    stage = running(settings, a=1, b=1)
    for step in range(1, 40):
        stage.now += 0.5
        stage.progress(step, "step", "w1")
        if step % 2 == 0:
            stage.progress(step // 2, "step", "w2")
    stage.wait(1.0)
    assert stage.last_words == "worker 1 on b is slow: it takes 2.0 times as long for a step as the others"
    stage.wait(1.0)
    assert sum("is slow" in text for text in stage.texts) == 1
