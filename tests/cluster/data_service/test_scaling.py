"""How many service workers follow from what was measured: no processes, no time."""

from collections.abc import Callable

from cluster.data_service.scaling import Scaling, Wait


def sizes(state: Scaling, wait: Callable[[int], float], seconds: int, began: int = 0) -> tuple[Scaling, list[int]]:
    """The numbers that are wanted one after the other, where a wait is measured every second for that many workers."""
    found = [state.wanted]
    for second in range(began, began + seconds):
        state = state.after(float(second), state.wanted, (Wait(float(second), wait(state.wanted)),))
        if state.wanted != found[-1]:
            found.append(state.wanted)
    return state, found


def starved(needed: float) -> Callable[[int], float]:
    """The share that is waited where so many workers would do."""
    return lambda workers: max(0.0, 1 - workers / needed)


def test_it_grows_until_nobody_waits_and_then_stays():
    state, found = sizes(Scaling.between(1, 8), starved(5.0), 110)
    assert found == [1, 2, 4, 5]
    assert sizes(state, starved(5.0), 400, 110)[1] == [5]


def test_it_never_leaves_its_range():
    assert sizes(Scaling.between(2, 3), lambda workers: 0.9 / workers, 200)[1] == [2, 3]
    assert sizes(Scaling.between(2, 3), lambda workers: 0.0, 1000)[1] == [2]


def test_a_growth_that_does_not_help_is_taken_back_and_not_tried_again():
    state, found = sizes(Scaling.between(1, 8), lambda workers: 0.6, 100)
    assert found == [1, 2, 1]
    assert sizes(state, lambda workers: 0.6, 600, 100)[1] == [1]


def test_a_worker_too_many_goes_and_one_that_is_missed_comes_back_for_good():
    state, found = sizes(Scaling(1, 8, wanted=4), lambda workers: 0.0 if workers >= 3 else 0.2, 500)
    assert found == [4, 3, 2, 3]
    assert sizes(state, lambda workers: 0.0, 500, 500)[1] == [3]


def test_nothing_is_decided_while_workers_start_or_on_what_was_measured_before():
    state = Scaling.between(1, 8)
    for second in range(60):
        state = state.after(float(second), 0, (Wait(float(second), 1.0),))
    assert state.wanted == 1
    for second in range(60, 66):
        state = state.after(float(second), 1, (Wait(second - 1.0, 1.0),))
    assert state.wanted == 1 and not state.waits
