import pytest

from trainer.goodput.progress import StepTimes
from trainer.goodput.timeline import Tile, Timeline


def test_tiles_follow_each_other_without_a_gap_and_never_go_back() -> None:
    timeline = Timeline()
    timeline.begin(1.0)
    assert [timeline.extend(until, phase) for until, phase in [(2.0, "a"), (2.5, "b"), (2.0, "c"), (3.0, "b")]] == [
        1.0,
        0.5,
        0.0,
        0.5,
    ]
    assert [(tile.start, tile.end, tile.phase) for tile in timeline.tiles] == [(1.0, 2.0, "a"), (2.0, 3.0, "b")]


def test_relabelling_cuts_tiles_at_its_edges_and_spares_other_phases() -> None:
    timeline = Timeline()
    timeline.begin(0.0)
    for until, phase in [(4.0, "productive"), (6.0, "compile"), (10.0, "productive")]:
        timeline.extend(until, phase)
    timeline.charge("data_wait", 0, 0.0, 4.0, 2.0)
    assert timeline.relabel(1.0, 7.0, ("productive",), "lost") == 4.0
    assert [(tile.start, tile.end, tile.phase) for tile in timeline.tiles] == [
        (0.0, 1.0, "productive"),
        (1.0, 4.0, "lost"),
        (4.0, 6.0, "compile"),
        (6.0, 7.0, "lost"),
        (7.0, 10.0, "productive"),
    ]
    assert timeline.tiles[0].seconds() == {"productive": 0.5, "data_wait": 0.5}
    assert timeline.tiles[1].seconds() == {"lost": 3.0}


def test_waits_never_exceed_the_tile() -> None:
    tile = Tile(0.0, 1.0, "productive", {("data_wait", 0): 1.5, ("data_wait", 1): 0.1, ("checkpoint", 1): 0.5})
    assert tile.seconds() == {"productive": 0.0, "data_wait": pytest.approx(0.75), "checkpoint": pytest.approx(0.25)}


def test_the_time_of_a_step_lies_between_the_reports_around_it() -> None:
    times = StepTimes()
    for step, at in [(0, 10.0), (10, 20.0), (30, 30.0)]:
        times.add(step, at)
    assert [times.time_of(step) for step in (0, 5, 10, 20, 30, 99)] == [10.0, 15.0, 20.0, 25.0, 30.0, 30.0]
    times.restart(20, 100.0)
    times.add(40, 110.0)
    assert (times.best, times.time_of(30), times.time_of(5)) == (40, 105.0, 15.0)
    assert StepTimes().time_of(0) is None


def test_a_long_run_keeps_its_steps_in_bounded_memory() -> None:
    times = StepTimes()
    for step in range(50_000):
        times.add(step, float(step))
    assert len(times._points) <= 4_001
    assert times.time_of(49_990) == 49_990.0
    assert times.time_of(1_001) == pytest.approx(1_001, abs=5)
