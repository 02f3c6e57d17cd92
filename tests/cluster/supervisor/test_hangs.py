"""Members that hang, freeze or are slow."""

from dataclasses import replace

import pytest

from cluster.supervisor.commands import DumpStacks, Kill, StartWorker
from cluster.supervisor.settings import HangLimits, Settings, Sizes
from cluster.supervisor.states import Running
from tests.cluster.supervisor.stage import SIGKILL, of, running, workers_of

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
