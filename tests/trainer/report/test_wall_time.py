from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.report.reading import read_run
from trainer.report.wall_time import phase_totals, status, wall_time


def test_totals_count_bundles_by_their_number():
    spans = [
        {"name": "step", "step": 50, "start": 0, "duration": 2.0},
        {"name": "step", "start": 3, "end": 9, "duration": 4.0, "count": 20},
    ]
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
    assert record.account.wall_s == pytest.approx(wall.duration, abs=0.5)
    (crash,) = record.account.failures
    assert crash.phases["restart_down"] == pytest.approx(crash_s, abs=0.5)
    assert crash.steps_lost == pytest.approx(50, abs=50)


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
    assert record.account.goodput is None
