"""Blocks from service workers that die, freeze and come back: real processes, without TensorFlow."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.data_service.block import Block
from cluster.data_service.board import Patience
from cluster.data_service.client import BlockClient
from cluster.data_service.fleet import Fleet
from cluster.data_service.local_workers import LocalDataWorkers
from cluster.data_service.scaling import Scaling, Wait
from cluster.data_service.worker_list import WorkerList
from cluster.supervisor.settings import BackOff
from cluster.worker_environment import WorkerProgram
from tests.cluster.data_service.squares import KEY, read, request

pytestmark = pytest.mark.processes

PATIENCE = Patience(hedge_s=0.05, suspect_s=0.3, unknown_s=0.3)
PATIENCE_S = 60.0
ENDLESS = 10**9
PROGRAM = WorkerProgram((sys.executable, "-m", "tests.cluster.data_service.squares"), {})


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


class Service:
    """A fleet and a client of it."""

    def __init__(self, folder: Path, scaling: Scaling) -> None:
        self.events: list[tuple[str, dict]] = []
        self.waits: list[Wait] = []
        self.warnings: list[str] = []
        self.list = WorkerList(folder / "workers.json")
        self.fleet = Fleet(
            LocalDataWorkers(PROGRAM, folder / "logs", threads=1),
            self.list,
            scaling,
            lambda: [self.waits.pop() for _ in list(self.waits)],
            lambda event, **fields: self.events.append((event, fields)),
            lambda text: None,
            BackOff(first_s=0.05, longest_s=0.1),
        )
        self.client = BlockClient(self.list, KEY, PATIENCE, self.warnings.append)

    @property
    def num_listed(self) -> int:
        return len(WorkerList(self.list.path).read())

    def take(self, blocks: Iterator[Block], first: int, count: int) -> set[int]:
        """The next blocks, which must be those; gives the processes that read them."""
        pids = set()
        for number in range(first, first + count):
            block = next(blocks)
            assert block.arrays["square"].min() == block.arrays["square"].max() == number**2
            pids.add(block.notes)
        return pids

    def take_until(self, blocks: Iterator[Block], first: int, condition: Callable[[set[int]], object]) -> int:
        """Takes blocks until the processes that read the last ones are as wanted; gives the number of the next one."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self.take(blocks, first, 20)):
            assert time.monotonic() < deadline, "it never came"
            first += 20
        return first + 20


@contextlib.contextmanager
def service(folder: Path, scaling: Scaling) -> Iterator[Service]:
    made = Service(folder, scaling)
    made.fleet.open()
    try:
        yield made
    finally:
        made.client.close()
        made.fleet.close()


def test_workers_that_are_killed_and_frozen_cost_no_block(tmp_path):
    with service(tmp_path, Scaling.between(2, 2)) as made:
        wait_until(lambda: made.num_listed == 2)
        blocks, here = made.client.blocks(ENDLESS, request, read), os.getpid()
        at = made.take_until(blocks, 0, lambda pids: len(pids - {here}) == 2)
        (victim, frozen) = pids = made.take(blocks, at, 100) - {here}
        os.kill(victim, signal.SIGKILL)
        at = made.take_until(blocks, at + 100, lambda found: found - pids - {here})
        assert made.num_listed == 2 and not made.warnings
        assert [fields["reason"] for event, fields in made.events if event == "data_worker_ended"] == ["SIGKILL"]
        os.kill(frozen, signal.SIGSTOP)
        try:
            at = made.take_until(blocks, at, lambda found: frozen not in found)
            made.take(blocks, at, 100)
        finally:
            os.kill(frozen, signal.SIGCONT)
    assert not made.list.path.exists()


def test_without_workers_this_process_reads_and_warns_once_until_there_are_some(tmp_path):
    with service(tmp_path, Scaling.between(1, 1)) as made:
        wait_until(lambda: made.num_listed == 1)
        blocks, here = made.client.blocks(ENDLESS, request, read), os.getpid()
        at = made.take_until(blocks, 0, lambda pids: here not in pids)
        (pid,) = made.take(blocks, at, 1)
        os.kill(pid, signal.SIGSTOP)
        at = made.take_until(blocks, at + 1, lambda pids: pids == {here})
        at = made.take_until(blocks, at, lambda pids: made.warnings)
        os.kill(pid, signal.SIGKILL)
        at = made.take_until(blocks, at, lambda pids: here not in pids)
        os.kill(made.take(blocks, at, 1).pop(), signal.SIGKILL)
        made.take_until(blocks, at + 1, lambda pids: here not in pids)
        assert len(made.warnings) == 1, "once"


def test_a_new_stretch_ends_the_last_one_and_an_error_is_this_process_own(tmp_path):
    with service(tmp_path, Scaling.between(1, 1)) as made:
        wait_until(lambda: made.num_listed == 1)
        first = made.client.blocks(ENDLESS, request, read)
        made.take(first, 0, 5)
        second = made.client.blocks(3, lambda number: request(number if number < 2 else -1), read)
        assert list(first) == []
        made.take(second, 0, 2)
        with pytest.raises(ValueError, match="there is no block -1"):
            next(second)
        third = made.client.blocks(2, request, read)
        made.take(third, 0, 2)
        assert list(third) == []


def test_a_service_grows_with_the_waiting(tmp_path):
    with service(tmp_path, Scaling.between(1, 2)) as made:
        wait_until(lambda: made.num_listed == 1)
        late = time.monotonic() + 1000
        # What is measured comes with its time: the decision needs no clock but that.
        made.fleet._scaling = Scaling(1, 2, 1, since=late - 2000)
        made.waits += [Wait(late - 1000, 0.5)] * 3
        wait_until(lambda: made.num_listed == 2)
        assert [fields["workers"] for event, fields in made.events if event == "data_service_scaled"] == [2]
