"""Several workers as objects in one process: whatever their clocks, signals and disks say, they decide alike."""

import itertools

import pytest

from trainer.config.interval import Interval
from trainer.decisions import Decisions
from trainer.due import Due
from trainer.intervals.snapshot_interval import SnapshotInterval
from trainer.stop_request import StopRequest
from trainer.strategies.strategy import NUM_VOTES


class Ballot:
    """The votes of all workers of one process, counted as the gradients' reduction would."""

    def __init__(self) -> None:
        self.votes: dict[int, list[bool]] = {}

    def of(self, rank: int) -> "BallotPlace":
        return BallotPlace(self, rank)


class BallotPlace:
    def __init__(self, ballot: Ballot, rank: int) -> None:
        self._ballot, self._rank = ballot, rank

    def cast(self, votes) -> None:
        self._ballot.votes[self._rank] = list(votes)

    def counted(self) -> list[bool]:
        return [any(votes[i] for votes in self._ballot.votes.values()) for i in range(NUM_VOTES)]

    def from_chief(self, number: int) -> int:
        return number


class FakeSaver:
    def __init__(self, due: Due, ready: bool) -> None:
        self.due, self.ready = due, ready
        self.snapshot_interval = SnapshotInterval(20)
        self.gathers = False


class Worker:
    """One worker with a clock of its own."""

    def __init__(self, ballot: Ballot | None, rank: int, every: Interval, now: float = 0.0) -> None:
        self.now = now
        self.stop = StopRequest()
        clock = lambda: self.now  # noqa: E731
        self.evaluation_due = Due(every, 10, clock)
        self.saver = FakeSaver(Due(every, 10, clock), ready=True)
        agreement = ballot.of(rank) if ballot else None
        self.decisions = Decisions(agreement, rank == 0, self.stop, self.evaluation_due, self.saver)

    def decide(self, step: int) -> tuple[bool, bool, bool]:
        decided = self.decisions.stops, self.decisions.evaluates(step), self.decisions.saves(step)
        if decided[1]:
            self.evaluation_due.done()
        if decided[2]:
            self.saver.due.done()
        return decided


def one_call(workers: list[Worker], step: int) -> tuple[bool, bool, bool]:
    for worker in workers:
        worker.decisions.before_call()
    for worker in workers:
        worker.decisions.after_call()
    [decided] = {worker.decide(step) for worker in workers}  # one decision, or this fails
    return decided


def workers_of(every: Interval) -> list[Worker]:
    ballot = Ballot()
    return [Worker(ballot, rank, every, now=100.0 * rank) for rank in range(3)]


@pytest.mark.parametrize("rank", range(3))
def test_a_stop_at_any_worker_stops_all(rank):
    workers = workers_of(Interval(1000, "s"))
    assert one_call(workers, 1) == (False, False, False)
    workers[rank].stop.request("SIGTERM")
    assert not any(worker.decisions.stops for worker in workers)  # nobody knows of it yet
    assert one_call(workers, 2) == (True, False, False)


def test_only_the_chiefs_clock_counts():
    workers = workers_of(Interval(30, "s"))
    workers[1].now += 1000
    assert one_call(workers, 1) == (False, False, False)
    workers[0].now += 31
    assert one_call(workers, 2) == (False, True, True)
    assert one_call(workers, 3) == (False, False, False)


def test_only_the_chiefs_writer_counts_and_what_is_put_off_stays_due_everywhere():
    workers = workers_of(Interval(5, "st"))
    workers[1].saver.ready = False
    assert one_call(workers, 5) == (False, True, True)
    workers[0].saver.ready = False
    assert one_call(workers, 10) == (False, True, False)
    assert one_call(workers, 11) == (False, False, False)
    workers[0].saver.ready = True
    assert one_call(workers, 12) == (False, False, True)


def test_a_process_alone_acts_at_once():
    worker = Worker(None, 0, Interval(30, "s"))
    assert worker.decide(1) == (False, False, False)
    worker.now = 30
    worker.stop.request("SIGTERM")
    assert worker.decide(1) == (True, True, True)


def test_all_mixtures_of_wishes_are_decided_alike():
    for stop, late, ready in itertools.product(itertools.product([False, True], repeat=3), repeat=3):
        workers = workers_of(Interval(30, "s"))
        for rank, worker in enumerate(workers):
            worker.now += 31 * late[rank]
            worker.saver.ready = ready[rank]
            if stop[rank]:
                worker.stop.request("SIGTERM")
        assert one_call(workers, 1) == (any(stop), late[0], late[0] and ready[0])


def test_the_interval_of_snapshots_changes_everywhere_after_the_same_call_by_the_chiefs_measure_alone():
    workers = workers_of(Interval(1000, "s"))
    intervals = [worker.saver.snapshot_interval for worker in workers]
    intervals[1].aim_at(1)  # whoever is not the chief has measured something else
    intervals[0].aim_at(900)
    seen = []
    for step in range(7):
        one_call(workers, step)
        [steps] = {interval.steps for interval in intervals}
        seen.append(steps)
    assert seen == [50, 100, 200, 500, 1000, 1000, 1000]
    intervals[0].aim_at(400)
    one_call(workers, 8)
    assert {interval.steps for interval in intervals} == {500}
