"""The search for the largest batch, on memories whose shape is known."""

import math

import pytest

from launch.tpu_check.batch_search import MOST_TRIALS, TOLERANCE, Largest, Trial, largest_batch


def search(needed, first, *, unit=4, most=10**9, usable=16_000, fixed=1_000, allowed=MOST_TRIALS) -> Largest:
    compiled = []

    def trial(batch_size):
        compiled.append(batch_size)
        return Trial(batch_size, needed(batch_size), needed(batch_size) <= usable)

    def next_trial(batch_size):
        return trial(batch_size) if len(compiled) < allowed else None

    return largest_batch(trial(first), next_trial, unit, most, usable, fixed)


SHAPES = {
    "even": lambda b: 1_000 + 7 * b,
    "in steps": lambda b: 1_000 + 512 * math.ceil(7 * b / 512),
    "padded to powers of two": lambda b: 1_000 + 3 * 2 ** math.ceil(math.log2(b)),
    "growing faster": lambda b: 1_000 + b**1.5,
}


@pytest.mark.parametrize("first", [4, 64, 100_000], ids=["far below", "below", "far above"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_batch_is_bracketed(shape, first):
    found = search(SHAPES[shape], first)
    truth = max(b for b in range(4, 20_000, 4) if SHAPES[shape](b) <= 16_000)
    assert found.batch_size is not None and found.refused is not None
    assert found.batch_size <= truth < found.refused
    assert found.refused - found.batch_size <= max(4, TOLERANCE * found.batch_size + 4)
    assert all(trial.batch_size % 4 == 0 for trial in found.trials)


def test_nothing_beyond_what_is_of_interest_is_compiled():
    found = search(SHAPES["even"], 32, most=1_001)
    assert (found.batch_size, found.refused) == (1_000, None)
    assert len(found.trials) == 2


def test_a_state_that_is_too_large_leaves_no_batch():
    found = search(lambda b: 20_000 + b, 32, fixed=20_000)
    assert found.batch_size is None
    assert found.refused == 4


def test_the_search_ends_with_the_time():
    found = search(SHAPES["even"], 4, allowed=2)
    assert len(found.trials) == 2
    assert found.batch_size is not None
