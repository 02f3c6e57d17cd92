"""The largest batch that fits into a device's memory, found by compiling a few."""

import math
from collections.abc import Callable
from typing import NamedTuple

TOLERANCE = 0.05
"""How near, as a share, the batch that fits and the one that does not are at the end."""

MOST_TRIALS = 12


class Trial(NamedTuple):
    """A batch that was compiled.

    Attributes:
        needed: bytes of HBM, at least.
        fits: whether the compiler took it.
    """

    batch_size: int
    needed: int
    fits: bool


class Largest(NamedTuple):
    """What the search found.

    Attributes:
        batch_size: the largest that was compiled and fits; None: none did.
        refused: the smallest that does not fit; None: none was tried that does not.
        trials: all of them, in their order.
    """

    batch_size: int | None
    refused: int | None
    trials: list[Trial]


def largest_batch(
    first: Trial,
    compile_batch: Callable[[int], Trial | None],
    unit: int,
    most: int,
    usable: int,
    fixed: int,
) -> Largest:
    """Searches along the line through what two batches needed, and every third time in the middle of the gap.

    Args:
        first: a batch that was compiled before.
        compile_batch: compiles another; None: there is no time left for it.
        unit: batches are multiples of it.
        most: no larger one is of interest.
        usable: bytes of HBM of a device.
        fixed: bytes that any batch needs: weights and the like.
    """
    trials = [first]
    while len(trials) < MOST_TRIALS:
        batch_size = _next(trials, unit, most, usable, fixed)
        trial = compile_batch(batch_size) if batch_size else None
        if trial is None:
            break
        trials.append(trial)
    fitting = [trial.batch_size for trial in trials if trial.fits]
    refused = [trial.batch_size for trial in trials if not trial.fits]
    return Largest(max(fitting, default=None), min(refused, default=None), trials)


def _next(trials: list[Trial], unit: int, most: int, usable: int, fixed: int) -> int | None:
    """The batch to compile next; None where no other one tells more."""
    low = max((trial for trial in trials if trial.fits), default=Trial(0, fixed, True))
    high = min((trial for trial in trials if not trial.fits), default=None)
    top = most // unit * unit
    step = max(unit, int(TOLERANCE * low.batch_size) // unit * unit)
    if high is None:
        if low.batch_size >= top:
            return None
        before = max((trial for trial in trials if trial < low), default=Trial(0, fixed, True))
        guess = _on_the_line(before, low, usable)
        return min(max(_floor(guess, unit), low.batch_size + step), top)
    if high.batch_size - low.batch_size <= step:
        return None
    if len(trials) % 3:
        guess = _on_the_line(low, high, usable)
    else:  # what a batch needs may jump, and the line then creeps
        guess = math.sqrt(low.batch_size * high.batch_size) or high.batch_size / 2
    return min(max(_floor(guess, unit), low.batch_size + step), high.batch_size - unit)


def _floor(batch_size: float, unit: int) -> int:
    return int(batch_size) // unit * unit


def _on_the_line(one: Trial, other: Trial, usable: int) -> float:
    """The batch that would just fit, if memory grew evenly from one to the other."""
    slope = (other.needed - one.needed) / (other.batch_size - one.batch_size)
    if slope <= 0:
        return 2.0 * other.batch_size
    return one.batch_size + (usable - one.needed) / slope
