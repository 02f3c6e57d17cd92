import pytest

from trainer.goodput.reading import account_of


def span(name: str, start: float, end: float, **more: object) -> dict:
    return {"name": name, "start": start, "duration": end - start, "rank": 0, **more}


def record(time: float, event: str, generation: int = 0, **fields: object) -> dict:
    return {"time": time, "event": event, "generation": generation, **fields}


FIRST = [
    span("startup", 10, 12),
    span("data", 12, 12.5, step=0),
    span("compile", 12.5, 14, step=0),
    span("step", 14, 18, step=10),
    span("data", 18, 18.5, step=50),
    span("step", 18.5, 20, step=50),
]


def test_a_process_alone_is_accounted_for_by_its_trace() -> None:
    spans = [*FIRST, span("evaluate", 20, 22, step=60)]
    journal = [
        record(12, "started", step=0),
        record(19, "checkpoint_saved", step=40, stall=0.25, duration=0.5),
        record(23, "finished", step=60),
        record(24, "exported", step=60),
    ]
    found = account_of(journal, {0: spans})
    assert found.seconds == pytest.approx(
        dict(startup=2, compile=1.5, productive=5.25, data_wait=1, checkpoint=1.25, evaluate=2, export=1), abs=0.01
    )  # fmt: skip
    assert sum(found.seconds.values()) == pytest.approx(found.wall_s) == 14
    assert (found.failures, found.steps) == ((), 60)


def test_a_killed_process_that_is_started_again_is_a_failure() -> None:
    journal = [record(12, "started", step=0), record(112, "resumed", 1, step=30), record(130, "finished", 1, step=100)]
    again = [
        span("startup", 110, 112),
        span("compile", 112, 114, step=30),
        span("step", 114, 130, step=40),
    ]
    found = account_of(journal, {0: [*FIRST, *again]})
    (row,) = found.failures
    assert (row.cause, row.what, row.steps_lost, row.source) == ("launcher", "the process ended", 20, "checkpoint")
    assert row.phases == pytest.approx(dict(restart_down=90, restart_built=2, restart_first_step=2), abs=0.01)
    # Step 30 was complete at 16: forty steps in the four seconds from step 10 on.
    assert row.lost_s == pytest.approx(4, abs=0.5)
    assert sum(found.seconds.values()) == pytest.approx(found.wall_s)


def test_what_a_process_says_before_it_trains_ends_its_rest_and_not_the_work_of_the_one_before() -> None:
    began = [record(12, "started", step=0), record(20, "stopped", step=60)]
    again = [record(112, "resumed", 1, step=60), record(130, "finished", 1, step=100)]
    found = account_of([*began, record(111, "checkpoint_damaged", 1), *again], {0: FIRST})
    assert found.seconds == account_of([*began, *again], {0: FIRST}).seconds


def test_a_process_that_said_why_it_failed_is_quoted() -> None:
    journal = [
        record(12, "started", step=0),
        record(20, "failed", reason="the disk is full", kind="OSError"),
        record(32, "resumed", 1, step=50),
    ]
    (row,) = account_of(journal, {0: FIRST}).failures
    assert row.what == "the disk is full"


def test_a_run_without_a_trace_or_a_journal_is_no_error() -> None:
    assert account_of([], {}).goodput is None
    found = account_of([record(12, "started", step=0), record(20, "finished", step=5)], {})
    assert found.wall_s == 8
