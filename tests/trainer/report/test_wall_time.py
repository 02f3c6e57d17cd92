from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.report.reading import read_run
from trainer.report.wall_time import goodput, phase_totals, status, useful_step_seconds, wall_time


def _step(step: int, start: float, seconds: float = 1.0) -> dict:
    return {"name": "step", "step": step, "start": start, "duration": seconds}


def test_steps_trained_again_after_a_failure_count_once():
    spans = [_step(50, 0), _step(100, 1), _step(150, 2), _step(100, 10), _step(150, 11)]
    assert useful_step_seconds(spans) == 3.0
    assert useful_step_seconds([*spans, {"name": "data", "start": 12, "duration": 5}]) == 3.0


def test_totals_count_bundles_by_their_number():
    spans = [_step(50, 0, 2.0), {"name": "step", "start": 3, "end": 9, "duration": 4.0, "count": 20}]
    assert phase_totals(spans) == {"step": (6.0, 21)}


def test_a_pause_is_not_part_of_the_duration_and_a_crash_is(example_run: Callable):
    run = example_run()
    run.start()
    run.train(0, 500)
    run.end()  # killed
    crash_s, pause_s = 7.0, 3600.0
    run.now += crash_s
    run.start(step=450)
    run.train(450, 500)
    run.end("stopped")
    run.now += pause_s
    run.start(step=500)
    run.end("finished")
    record = read_run(run.folder)
    wall = wall_time(record)
    assert wall.pauses == pause_s
    assert wall.began is not None and wall.ended is not None
    assert wall.duration == pytest.approx(wall.ended - wall.began - pause_s)
    share = goodput(record, wall)
    assert share is not None
    assert share == pytest.approx(useful_step_seconds(record.spans[0]) / (wall.duration or 0))


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (["started", "finished"], "finished"),
        (["started", "failed"], "failed"),
        (["started", "stopped", "resumed", "evaluated"], "unfinished"),
        (["started", "stopped", "resumed", "finished", "exported"], "finished"),
        ([], "unfinished"),
    ],
)
def test_status(events: list[str], expected: str):
    assert status([{"event": event} for event in events]) == expected


def test_a_run_without_records_has_no_times(tmp_path: Path):
    record = read_run(tmp_path)
    wall = wall_time(record)
    assert wall.duration is None
    assert goodput(record, wall) is None
