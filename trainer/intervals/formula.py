"""The interval between two saves that costs a run the least time, within bounds.

Saving costs C seconds each time and an interruption half an interval's work, so with a mean time M between
interruptions an interval of sqrt(2 C M) loses the least: J. W. Young, "A first order approximation to the optimum
checkpoint interval", CACM 17 (1974). J. T. Daly's higher-order form, "A higher order estimate of the optimum checkpoint
interval for restart dumps", FGCS 22 (2006), holds as well where C is no longer small beside M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Reason = Literal["failures", "patience", "overhead", "writing", "free"]
# A save that costs less than this share of a step is taken after every step: nothing is lost by an interruption then.
FREE_SHARE = 0.01
# Writing goes on beside the steps for at most half of the time: what it costs must stay measurable.
_WRITING_SHARE = 0.5


@dataclass(frozen=True)
class Limits:
    """What bounds an interval besides the formula.

    Attributes:
        most_s: The longest: work that a user would accept to have done again.
        most_share: Of the time, that saves may cost; None for no such bound. It counts more than `most_s`.
        is_free_possible: Whether a save may be taken after every step if it costs next to nothing.
    """

    most_s: float
    most_share: float | None
    is_free_possible: bool = False


@dataclass(frozen=True)
class BestInterval:
    """An interval and what decided it.

    Attributes:
        seconds: Between the beginnings of two saves.
        reason: "failures": the formula; "patience": it is as long as `most_s` allows; "overhead": it is as short as
            `most_share` allows; "writing": a save takes that long to be written; "free": it is one step.
    """

    seconds: float
    reason: Reason


def daly_interval(cost_s: float, mtbf_s: float) -> float:
    """Seconds of work between two saves that cost `cost_s` each, interrupted every `mtbf_s` on the average.

    >>> round(daly_interval(5.0, 86_400.0)), round(math.sqrt(2 * 5.0 * 86_400.0))  # Young's
    (926, 930)
    >>> daly_interval(10.0, 4.0)  # nothing can be saved between two interruptions
    4.0
    """
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = math.sqrt(cost_s / (2 * mtbf_s))
    return math.sqrt(2 * cost_s * mtbf_s) * (1 + ratio / 3 + ratio**2 / 9) - cost_s


def best_interval(cost_s: float, mtbf_s: float, limits: Limits, *, write_s: float, step_s: float) -> BestInterval:
    """The interval for saves of one kind.

    Args:
        cost_s: What a save holds the steps up.
        mtbf_s: Mean time between interruptions that such a save is for.
        limits: Bounds.
        write_s: Seconds from the beginning of a save until it is written, most of them beside the steps.
        step_s: Seconds a step.
    """
    if limits.is_free_possible and cost_s <= FREE_SHARE * step_s and write_s <= _WRITING_SHARE * step_s:
        return BestInterval(step_s, "free")
    best = BestInterval(daly_interval(cost_s, mtbf_s), "failures")
    if best.seconds > limits.most_s:
        best = BestInterval(limits.most_s, "patience")
    if limits.most_share is not None and best.seconds < cost_s / limits.most_share:
        best = BestInterval(cost_s / limits.most_share, "overhead")
    if best.seconds < write_s / _WRITING_SHARE:
        best = BestInterval(write_s / _WRITING_SHARE, "writing")
    return best
