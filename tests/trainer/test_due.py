import math

import pytest

from trainer.config.interval import Interval
from trainer.due import Due


def due_steps(interval: Interval, steps_per_epoch: int, until: int) -> list[int]:
    due, step, steps = Due(interval, steps_per_epoch), 0, []
    while (step := due.next_step(step)) <= until:
        assert due.reached(int(step))
        due.done()
        steps.append(int(step))
    return steps


@pytest.mark.parametrize(
    ("interval", "steps"),
    [("3st", [3, 6, 9]), ("1ep", [7]), ("0.5ep", [4, 7]), ("0.1ep", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])],
)
def test_steps_and_epochs_are_due_at_fixed_steps(interval, steps):
    assert due_steps(Interval.parse(interval), 7, 10) == steps


def test_it_does_not_matter_where_a_process_began():
    due = Due(Interval(0.5, "ep"), 7)
    reached = [step for step in range(1, 29) if due.reached(step)]
    assert reached == due_steps(Interval(0.5, "ep"), 7, 28) == [4, 7, 11, 14, 18, 21, 25, 28]


def test_seconds_are_due_at_the_first_boundary_after_them():
    now = 100.0
    due = Due(Interval(30, "s"), 7, clock=lambda: now)
    assert due.next_step(5) == math.inf
    now = 129.0
    assert not due.reached(5)
    now = 130.0
    assert due.reached(6)
    due.done()
    assert not due.reached(7)


def test_what_was_put_off_stays_due_until_it_is_done():
    due = Due(Interval(10, "st"), 7)
    assert due.reached(10)
    due.put_off()
    assert due.reached(13)
    due.done()
    assert not due.reached(14) and due.reached(20)


def test_never_is_never():
    due = Due(None, 7)
    assert due.next_step(0) == math.inf and not due.reached(7)
