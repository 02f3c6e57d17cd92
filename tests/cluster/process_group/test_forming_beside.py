"""A larger group is formed while the members of a smaller one go on in it."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cluster.assignment import Member
from cluster.process_group import Endpoint, GroupAborted, ProcessGroup

_PATIENCE_S = 120.0


@pytest.fixture(params=["aaa", "aba"])
def endpoints(request, tmp_path: Path) -> Iterator[list[Endpoint]]:
    """Those of three workers, all in this process."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Endpoint(f"w{number}", "127.0.0.1", b"key", tmp_path / host))
            for number, host in enumerate(request.param)
        ]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def members_of(endpoints: Sequence[Endpoint]) -> list[Member]:
    return [Member(one.worker, one._memory._folder.name, i, one.address) for i, one in enumerate(endpoints)]  # type: ignore[union-attr]


def begin(pool: ThreadPoolExecutor, call: Callable, *arguments: Sequence) -> list[Future]:
    return [pool.submit(call, *own) for own in zip(*arguments, strict=True)]


def results(futures: Sequence[Future]) -> list:
    return [future.result(_PATIENCE_S) for future in futures]


def form(endpoints: Sequence[Endpoint], generation: int, beside: bool) -> Callable[[int], ProcessGroup]:
    members = members_of(endpoints)

    def work(rank: int) -> ProcessGroup:
        call = endpoints[rank].form if beside else endpoints[rank].join
        return call(members, rank, generation, _PATIENCE_S)

    return work


def sums(groups: Sequence[ProcessGroup]) -> Callable[[int], Callable[[], list[float]]]:
    """Prepares sums of one part a member; then takes some."""
    parts = [range(rank, rank + 1) for rank in range(len(groups))]

    def prepare(rank: int) -> Callable[[], list[float]]:
        reduction = groups[rank].reduction(parts, len(parts), 100_000, np.float32)

        def run() -> list[float]:
            totals = []
            for step in range(4):
                reduction.own[0][:] = step + rank
                totals.append(float(reduction.run()[-1]))
            return totals

        return run

    return prepare


def test_members_go_on_in_their_group_until_they_leave_it(endpoints, pool):
    small = results(begin(pool, form(endpoints[:2], 1, beside=False), range(2)))
    take = results(begin(pool, sums(small), range(2)))
    forming = begin(pool, form(endpoints, 2, beside=True), range(2))
    assert results(begin(pool, lambda run: run(), take)) == [[1.0, 3.0, 5.0, 7.0]] * 2
    assert not any(future.done() for future in forming), "the newcomer has not been told yet"
    large = results([*forming, *begin(pool, form(endpoints, 2, beside=False), [2])])
    preparing = begin(pool, sums(large), range(3))
    assert results(begin(pool, lambda run: run(), take)) == [[1.0, 3.0, 5.0, 7.0]] * 2
    take = results(preparing)
    for endpoint in endpoints:
        endpoint.leave(2)
    with pytest.raises(GroupAborted):
        small[0].barrier()
    assert results(begin(pool, lambda run: run(), take)) == [[3.0, 6.0, 9.0, 12.0]] * 3


def test_an_abort_ends_both_groups(endpoints, pool):
    small = results(begin(pool, form(endpoints[:2], 1, beside=False), range(2)))
    forming = begin(pool, form(endpoints, 2, beside=True), [0])
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        small[0].barrier()  # which the other one does not come to

    stepping = pool.submit(wait)
    assert waiting.wait(_PATIENCE_S)
    endpoints[0].abort(2)
    for future in (*forming, stepping):
        with pytest.raises(GroupAborted):
            future.result(_PATIENCE_S)
    again = results(begin(pool, form(endpoints, 3, beside=False), range(3)))
    assert [group.size for group in again] == [3] * 3
