"""Slices of Phalanx that nobody uses any more, and that may cost money."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cluster.tpu.provider import Slice, State


class Orphan(NamedTuple):
    """A slice that should not be there, and why."""

    slice: Slice
    why: str


def orphans_of(slices: Iterable[Slice], now: float, runs: Iterable[str] | None = None) -> list[Orphan]:
    """Those with Phalanx's label that are past their time, dead, or of a run that is not one of `runs`.

    Args:
        slices: Of all zones in question, also those of others, which are left out.
        now: Seconds since 1970.
        runs: That are known to be alive; None: all may be.
    """
    alive = None if runs is None else set(runs)
    found = []
    for each in slices:
        if each.run is None or each.state is State.DELETING:
            continue
        if each.expires is not None and each.expires < now:
            found.append(Orphan(each, f"{(now - each.expires) / 3600:.1f} h past its max_run_hours"))
        elif each.state.is_dead:
            found.append(Orphan(each, f"it is {each.state.value}{f' ({each.reason})' if each.reason else ''}"))
        elif alive is not None and each.run not in alive:
            found.append(Orphan(each, f"its run {each.run} is over"))
    return found
