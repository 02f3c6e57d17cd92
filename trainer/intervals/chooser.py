"""Chooses the intervals of a run while it trains, from what it measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from trainer.due import Due
from trainer.intervals.choice import Chosen
from trainer.intervals.formula import BestInterval, Limits, best_interval
from trainer.intervals.interruptions import Exposure, Interruptions
from trainer.intervals.save_costs import SaveCost, StepClock
from trainer.intervals.snapshot_interval import SnapshotInterval

# Bringing a worker back takes a few seconds: as much work again is hardly felt beside it.
MOST_BETWEEN_SNAPSHOTS_S = 5.0
MOST_BETWEEN_CHECKPOINTS_S = 300.0
_FEWEST_SNAPSHOTS, _FEWEST_CALLS = 3, 5  # before anything is concluded from them
# A longer interval is a bet on few measurements, and the longer it is, the later it is known better.
_MOST_GROWTH = 10
_LOOK_EVERY = 64  # calls, when nothing was saved
_LASTING = 1.5  # a checkpoint interval changes by more than this factor, or stays


class Chooser:
    """Measures saves and steps, and sets the intervals that the config leaves open.

    Every worker of a group has one, so that whoever's snapshot is restored tells what was measured; only the chief's
    wishes are heard.

    Args:
        snapshots: The interval of snapshots, if it is to be chosen.
        checkpoints: When checkpoints are due, if that is to be chosen.
        has_snapshots: Whether this run takes any, chosen or not.
        exposure: What can fail.
        most_share: Of the time, that saves of either kind may cost; None for no limit.
        on_chosen: Called when an interval was chosen or has changed.
        clock: Monotonic seconds.

    Attributes:
        interruptions: Of the run so far.
    """

    def __init__(
        self,
        snapshots: SnapshotInterval | None,
        checkpoints: Due | None,
        *,
        has_snapshots: bool,
        exposure: Exposure,
        most_share: float | None,
        on_chosen: Callable[[Chosen], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshots, self._checkpoints = snapshots, checkpoints
        self._is_open = snapshots is not None or checkpoints is not None
        self._has_snapshots, self._exposure, self._clock = has_snapshots, exposure, clock
        self._on_chosen = on_chosen
        self._snapshot_limits = Limits(MOST_BETWEEN_SNAPSHOTS_S, most_share, is_free_possible=True)
        self._checkpoint_limits = Limits(MOST_BETWEEN_CHECKPOINTS_S, most_share)
        self.snapshot, self.checkpoint = SaveCost(num_ignored=1), SaveCost()
        self.interruptions = Interruptions()
        self._steps = StepClock()
        self._since, self._is_clean, self._beside = 0.0, True, self.snapshot
        self._calls = 0
        self._grown_at = 0  # measured snapshots at the last growth
        self._best_snapshots: tuple[BestInterval, float] | None = None
        self._told_steps: int | None = None
        self._checkpoints_s: float | None = None

    @property
    def leaves_out_snapshot(self) -> bool:
        """Whether the next snapshot is to be left out, so that a call shows what steps take without one."""
        return self._snapshots is not None and self._steps.longs_for_clean

    def call_begins(self, snapshot_writing: bool, checkpoint_writing: bool) -> None:
        """A call of the inner loop begins, beside these writes."""
        if not self._is_open:
            return
        if not snapshot_writing:
            self.snapshot.ends()
        if not checkpoint_writing:
            self.checkpoint.ends()
        self._is_clean = not (snapshot_writing or checkpoint_writing)
        # Of both at once, a checkpoint takes more: it is hashed and synced as well.
        self._beside = self.checkpoint if checkpoint_writing else self.snapshot
        self._since = self._clock()

    def call_ended(self, num_steps: int, run_s: float) -> None:
        """The call is over.

        Args:
            num_steps: That it took.
            run_s: For how long the run has trained, with the work of earlier processes that was kept.
        """
        if not self._is_open:
            return
        seconds = self._clock() - self._since
        if not self._is_clean and (usual_s := self._steps.seconds) is not None:
            self._beside.slowed(seconds - num_steps * usual_s, num_steps * self._steps.noise)
        self._steps.took(num_steps, seconds, self._is_clean)
        self._calls += 1
        has_news = self.snapshot.has_news or self.checkpoint.has_news
        if self._calls >= _FEWEST_CALLS and (has_news or self._calls % _LOOK_EVERY == 0):
            self.snapshot.has_news = self.checkpoint.has_news = False
            self._choose_snapshots(run_s)
            self._choose_checkpoints(run_s)
        self._tell_of_snapshots()

    def _choose_snapshots(self, run_s: float) -> None:
        interval, save = self._snapshots, self.snapshot
        if interval is None or interval.wish or self._steps.seconds is None or save.count < _FEWEST_SNAPSHOTS:
            return
        assert interval.steps is not None
        mtbf_s = self.interruptions.mtbf_s(self._exposure, run_s)
        best = self._best(save, mtbf_s, self._snapshot_limits)
        wanted = best.seconds / self._steps.pace
        may_grow = save.total >= self._grown_at + _FEWEST_SNAPSHOTS
        most = interval.steps * _MOST_GROWTH if may_grow else interval.steps
        interval.aim_at(min(wanted, most))
        if interval.wish > 0:
            self._grown_at = save.total
        if wanted <= most:
            self._best_snapshots = best, mtbf_s

    def _choose_checkpoints(self, run_s: float) -> None:
        if self._checkpoints is None or not self.checkpoint.count:
            return
        mtbf_s = self.interruptions.disk_mtbf_s(self._exposure, run_s, self._has_snapshots)
        best = self._best(self.checkpoint, mtbf_s, self._checkpoint_limits)
        before_s = self._checkpoints_s
        if before_s is None or not 1 / _LASTING < best.seconds / before_s < _LASTING:
            self._checkpoints_s = best.seconds
            self._checkpoints.change(best.seconds)
            self._on_chosen(Chosen("checkpoints", None, best.seconds, self.checkpoint.seconds, mtbf_s, best.reason))

    def _best(self, save: SaveCost, mtbf_s: float, limits: Limits) -> BestInterval:
        return best_interval(save.seconds, mtbf_s, limits, write_s=save.write_s, step_s=self._steps.pace)

    def _tell_of_snapshots(self) -> None:
        """Once the workers have moved to the interval that was chosen."""
        interval, found = self._snapshots, self._best_snapshots
        if interval is None or found is None or interval.wish:
            return
        self._best_snapshots = None
        if interval.steps is None or interval.steps == self._told_steps:
            return
        self._told_steps, (best, mtbf_s) = interval.steps, found
        seconds = interval.steps * self._steps.pace
        self._on_chosen(Chosen("snapshots", interval.steps, seconds, self.snapshot.seconds, mtbf_s, best.reason))

    def to_json(self) -> dict[str, Any]:
        """What a later process of the run begins with."""
        return {
            "snapshot": self.snapshot.to_json(),
            "snapshot_steps": self._snapshots.steps if self._snapshots else None,
            "checkpoint": self.checkpoint.to_json(),
            "checkpoint_s": self._checkpoints_s,
        }

    def remember(self, content: Mapping[str, Any]) -> None:
        """Begins with what an earlier process of the run has measured and chosen."""
        self.snapshot.remember(content["snapshot"])
        self.checkpoint.remember(content["checkpoint"])
        if self._snapshots is not None and content["snapshot_steps"] is not None:
            self._snapshots.steps = self._told_steps = content["snapshot_steps"]
        if self._checkpoints is not None and content["checkpoint_s"] is not None:
            self._checkpoints_s = content["checkpoint_s"]
            self._checkpoints.change(content["checkpoint_s"])
