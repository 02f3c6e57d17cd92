"""How long a step takes, measured by taking steps."""

import time
from collections.abc import Callable

MEASURED_S = 2.0
"""How long steps are measured."""


def measure_step(take: Callable[[int], object], most: int, duration_s: float = MEASURED_S) -> float | None:
    """Seconds of one step; None where not a single one may be taken.

    Calls get longer and longer, and the last one counts: first calls wait for buffers to fill.

    Args:
        take: takes so many steps and returns when they are done.
        most: steps that may be taken in all.
        duration_s: after so long, no further call begins.
    """
    taken, num_steps, step_s = 0, 1, None
    began = time.monotonic()
    while taken + num_steps <= most and time.monotonic() - began < duration_s:
        call_began = time.monotonic()
        take(num_steps)
        step_s = (time.monotonic() - call_began) / num_steps
        taken += num_steps
        num_steps *= 2
    return step_s
