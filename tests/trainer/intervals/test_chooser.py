"""A run told call by call: what saving costs is measured, and the intervals follow."""

from __future__ import annotations

import random

import pytest

from trainer.config.interval import Interval
from trainer.due import Due
from trainer.intervals.choice import Chosen, newest_choices, sentence
from trainer.intervals.chooser import Chooser
from trainer.intervals.interruptions import Exposure, Interruptions
from trainer.intervals.snapshot_interval import FIRST_STEPS, SnapshotInterval

HOUR = 3600.0


class Run:
    """Steps of `step_s`; a snapshot holds them up, and slows those beside its write."""

    def __init__(self, step_s: float, held_s: float, slower: float = 1.0, write_s: float = 0.01) -> None:
        self.now, self.step = 0.0, 0
        self._step_s, self._held_s, self._slower, self._write_s = step_s, held_s, slower, write_s
        self._writing = 0
        self.interval = SnapshotInterval(FIRST_STEPS)
        self.due = Due(Interval(60, "s"), 100, lambda: self.now)
        self.chosen: list[Chosen] = []
        self.taken: list[int] = []
        self.chooser = Chooser(
            self.interval,
            self.due,
            has_snapshots=True,
            exposure=Exposure(1, 1000 * HOUR),
            most_share=0.005,
            on_chosen=self.chosen.append,
            clock=lambda: self.now,
        )

    def train(self, steps: int) -> Run:
        # A call is now a little faster, now slower, as on a machine that others use too.
        noise = random.Random(self.step)
        until = self.step + steps
        while self.step < until:
            every = self.interval.steps or 1
            count = min(50, every - self.step % every)
            self.chooser.call_begins(self._writing > 0, False)
            self.now += count * self._step_s * noise.gauss(1.0, 0.05) * (self._slower if self._writing else 1.0)
            self._writing = max(0, self._writing - 1)
            self.step += count
            self.chooser.call_ended(count, self.now)
            self.interval.move(self.interval.wish)
            is_due = self.step % (self.interval.steps or 1) == 0
            if is_due and not self._writing and not self.chooser.leaves_out_snapshot:
                self.taken.append(self.step)
                self.now += self._held_s
                self.chooser.snapshot.begins(self._held_s)
                self.chooser.snapshot.write_s = self._write_s
                self._writing = 1
        return self


def test_an_interval_is_chosen_after_some_snapshots_and_said_once() -> None:
    run = Run(step_s=0.002, held_s=0.001).train(20_000)
    assert run.interval.steps == 2_000  # 5 s are 2,500 steps
    [chosen] = run.chosen
    assert (chosen.of, chosen.steps, chosen.reason) == ("snapshots", 2_000, "patience")
    assert chosen.cost_s == pytest.approx(0.001, rel=0.2)
    assert sentence(chosen.to_record()) == (
        "snapshots every 2000 steps (about 4.0s): one costs 1.0ms, and no more work than that is put at risk"
    )


def test_a_run_that_is_held_up_longer_takes_fewer_snapshots() -> None:
    # 0.2 s may be spent every 40 s.
    cheap, dear = (Run(step_s=0.002, held_s=held_s).train(60_000) for held_s in (0.001, 0.2))
    assert dear.interval.steps == 20_000 and dear.chosen[-1].reason == "overhead"
    assert len(dear.taken) < len(cheap.taken) / 2


def test_steps_that_are_slow_beside_a_write_count_as_its_cost() -> None:
    # One call of 20 steps of 10 ms takes 1.5 times as long: 0.1 s more than the loop is held up.
    run = Run(step_s=0.01, held_s=0.001, slower=1.5, write_s=0.2).train(400)
    assert run.chooser.snapshot.seconds == pytest.approx(0.1, rel=0.5)
    assert Run(step_s=0.01, held_s=0.001, write_s=0.2).train(400).chooser.snapshot.seconds < 0.02


def test_a_run_that_fails_more_often_takes_more_snapshots() -> None:
    calm, stormy = Run(step_s=0.002, held_s=0.002), Run(step_s=0.002, held_s=0.002)
    stormy.chooser.interruptions = Interruptions(failures=10_000)
    assert calm.train(20_000).interval.steps == 2_000
    # 1.2 s between snapshots, by the formula, which are 600 steps.
    assert stormy.train(20_000).interval.steps in (500, 1_000)
    assert stormy.chosen[-1].reason == "failures"


def test_snapshots_that_cost_nothing_beside_a_step_are_taken_after_every_step() -> None:
    run = Run(step_s=1.0, held_s=0.0005).train(200)
    assert run.interval.steps == 1 and run.chosen[-1].reason == "free"


def test_the_next_process_begins_with_what_this_one_knows() -> None:
    run = Run(step_s=0.002, held_s=0.002).train(20_000)
    again = Run(step_s=0.002, held_s=0.002)
    again.chooser.remember(run.chooser.to_json())
    assert again.interval.steps == run.interval.steps
    again.train(20_000)
    assert again.interval.steps == run.interval.steps and not again.chosen


def test_checkpoints_are_due_less_often_where_they_cost_more() -> None:
    run = Run(step_s=0.1, held_s=0.0)
    run.chooser.checkpoint.begins(0.5)
    run.chooser.checkpoint.write_s = 2.0
    run.train(200)
    [chosen] = [one for one in run.chosen if one.of == "checkpoints"]
    assert (chosen.steps, chosen.seconds, chosen.reason) == (None, 300.0, "patience")
    run.due.done()
    run.now += 299
    assert not run.due.time_is_up
    run.now += 2
    assert run.due.time_is_up
    records = [{"event": "interval_chosen", **one.to_record()} for one in run.chosen]
    assert [record["of"] for record in newest_choices(records)] == ["snapshots", "checkpoints"]
