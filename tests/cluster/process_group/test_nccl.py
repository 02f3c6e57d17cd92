"""The communicator's logic, between real groups, over what stands in for NCCL. None of it has ever seen a GPU."""

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cluster.assignment import Member
from cluster.process_group import Endpoint, GroupAborted, ProcessGroup, nccl
from cluster.process_group.nccl import Library, NcclFailed, NcclMissing, obstacle
from tests.cluster.agent_workers import wait_until
from tests.cluster.process_group.members import KEY, part_of
from tests.cluster.process_group.nccl_stand_in import INVALID_USAGE, REMOTE_ERROR, Fabric
from tests.cluster.process_group.test_device_sum import InMemory, expected

_JOIN_S = 120.0


def offers(group: ProcessGroup, library: Library) -> list:
    return [json.loads(told) for told in group.all_gather(json.dumps(group.device_offer(0, library)).encode())]


class Gpus:
    """Members, each of which is a thread and has a GPU."""

    def __init__(self, num_members: int) -> None:
        self.fabric = Fabric()
        self.endpoints = [Endpoint(f"w{rank}", "127.0.0.1", KEY, None) for rank in range(num_members)]
        self.libraries = [self.fabric.library(f"GPU-{rank}") for rank in range(num_members)]
        self.generation = 0

    def begin(self, work: Callable[[ProcessGroup, int], object], who: range) -> list:
        """Has members form the next group, connect their GPUs and do some work; their futures."""
        self.generation += 1
        members = [Member(f"w{i}", f"host{i // 2}", rank, self.endpoints[i].address) for rank, i in enumerate(who)]
        threads = [ThreadPoolExecutor(1) for _ in who]  # never again used: a communicator belongs to its thread

        def member(rank: int, i: int) -> object:
            group = self.endpoints[i].join(members, rank, self.generation, _JOIN_S)
            library = self.libraries[i]
            assert group.connect_devices(offers(group, library), 0, library) is None
            return work(group, rank)

        futures = [threads[rank].submit(member, rank, i) for rank, i in enumerate(who)]
        for thread in threads:
            thread.shutdown(wait=False)
        return futures

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.close()


@pytest.fixture
def gpus():
    made = Gpus(3)
    yield made
    made.close()


def added_up(is_exact: bool, parts: list[range], num_elements: int, steps: int = 2) -> Callable:
    def work(group: ProcessGroup, rank: int) -> list[bytes]:
        num_parts = sum(map(len, parts))
        device_sum = group.device_sum(InMemory(), parts, num_parts, num_elements, is_exact)
        return [
            device_sum.run([part_of(part, step, num_elements) for part in parts[rank]]).tobytes()
            for step in range(steps)
        ]

    return work


def test_groups_of_any_size_have_the_same_bits_one_after_the_other_in_the_same_processes(gpus):
    total = [expected(4, 100, step).tobytes() for step in range(2)]
    for who, parts in [
        (range(3), [range(0, 2), range(2, 3), range(3, 4)]),
        (range(1, 3), [range(0, 2), range(2, 4)]),
        (range(1), [range(4)]),
        (range(3), [range(3, 4), range(0, 2), range(2, 3)]),
    ]:
        found = [future.result(_JOIN_S) for future in gpus.begin(added_up(True, parts, 100), who)]
        assert found == [total] * len(who)
    made = [rank for what, rank in gpus.fabric.log if what == "made"]
    assert sorted(made) == [0, 0, 0, 1, 1, 1, 2, 2], "none for one member alone"
    gpus.close()
    assert len([rank for what, rank in gpus.fabric.log if what == "aborted"]) == len(made), "none is left"


def test_the_fast_way_gives_every_member_the_same_sum(gpus):
    parts = [range(0, 2), range(2, 4), range(4, 5)]
    found = [future.result(_JOIN_S) for future in gpus.begin(added_up(False, parts, 50), range(3))]
    assert found[0] == found[1] == found[2]
    for step, total in enumerate(found[0]):
        np.testing.assert_allclose(np.frombuffer(total, np.float32), expected(5, 50, step), rtol=1e-3, atol=1e-3)


def test_who_waits_for_a_dead_member_is_freed_by_another_thread_and_goes_on_in_the_next_group(gpus):
    waiting = threading.Barrier(3)
    parts = [range(i, i + 1) for i in range(3)]

    def all_but_one(group: ProcessGroup, rank: int) -> object:
        waiting.wait(_JOIN_S)
        return None if rank == 1 else added_up(True, parts, 20)(group, rank)  # rank 1 is dead from here on

    futures = gpus.begin(all_but_one, range(3))
    assert futures[1].result(_JOIN_S) is None
    for i in (0, 2):
        wait_until(lambda i=i: gpus.libraries[i].cuda.Device(0).stream.waiting)  # in the middle of an exchange
        gpus.endpoints[i].abort(gpus.generation)
        with pytest.raises(GroupAborted):
            futures[i].result(_JOIN_S)
    assert sorted(rank for what, rank in gpus.fabric.log if what == "aborted") == [0, 2]
    survivors = [range(0, 1), range(1, 2)]
    found = [future.result(_JOIN_S) for future in gpus.begin(added_up(True, survivors, 20), range(0, 3, 2))]
    assert found == [[expected(2, 20, step).tobytes() for step in range(2)]] * 2


def test_a_member_that_dies_before_the_gpus_are_connected_keeps_nobody(gpus):
    gpus.generation = 1
    members = [Member(f"w{i}", "host", i, gpus.endpoints[i].address) for i in range(2)]
    with ThreadPoolExecutor(2) as threads:

        def member(rank: int) -> str | None:
            group = gpus.endpoints[rank].join(members, rank, 1, _JOIN_S)
            told = offers(group, gpus.libraries[rank])
            return group.connect_devices(told, 0, gpus.libraries[rank]) if rank == 0 else None

        futures = [threads.submit(member, rank) for rank in range(2)]
        assert futures[1].result(_JOIN_S) is None
        gpus.endpoints[0].abort(1)
        with pytest.raises(GroupAborted):
            futures[0].result(_JOIN_S)


def test_an_error_about_another_member_waits_for_the_supervisor(gpus, capfd):
    parts = [range(0, 1), range(1, 2)]

    def broken(group: ProcessGroup, rank: int) -> object:
        group.barrier()
        gpus.fabric.fail(REMOTE_ERROR)
        return added_up(True, parts, 20)(group, rank)

    futures = gpus.begin(broken, range(2))
    printed = ""
    while printed.count("waiting for the next group") < 2:
        printed += capfd.readouterr().err
    assert "an exchange between GPUs failed on rank 0: error 6 (a socket was closed)" in printed
    assert not any(future.done() for future in futures)
    for i in range(2):
        gpus.endpoints[i].abort(gpus.generation)
        with pytest.raises(GroupAborted):
            futures[i].result(_JOIN_S)


def test_one_that_nobody_finds_dead_ends_the_process_and_so_does_an_error_of_its_own(gpus, capfd, monkeypatch):
    monkeypatch.setattr(nccl, "_SUPERVISOR_S", 0.0)
    parts = [range(0, 1), range(1, 2)]
    for result, words in [(REMOTE_ERROR, "no member was found dead: check the network"), (INVALID_USAGE, "nvidia-smi")]:

        def broken(group: ProcessGroup, rank: int, result: int = result) -> object:
            group.barrier()
            gpus.fabric.fail(result)
            return added_up(True, parts, 20)(group, rank)

        for future in gpus.begin(broken, range(2)):
            with pytest.raises(NcclFailed, match=words):
                future.result(_JOIN_S)


def test_a_gpu_that_cannot_be_stopped_ends_the_process(gpus, monkeypatch):
    monkeypatch.setattr(nccl, "_ABORT_S", 0.05)
    gpus.fabric.aborts_end.clear()
    futures = gpus.begin(lambda group, rank: group.leave(), range(2))
    try:
        for future in futures:
            with pytest.raises(NcclFailed, match=r"did not give up within 0\.05 s"):
                future.result(_JOIN_S)
    finally:
        gpus.fabric.aborts_end.set()


def test_members_that_cannot_be_connected_say_why():
    gpu = {"gpu": "GPU-1", "nccl": "2.32.3"}
    other = {"gpu": "GPU-2", "nccl": "2.32.3"}
    assert obstacle([gpu, other]) is None
    assert obstacle([gpu, {"why": "no driver"}]) == "rank 1: no driver"
    assert "ranks 0 and 2 use the same GPU GPU-1, which NCCL cannot" in str(obstacle([gpu, other, gpu]))
    assert "rank 1 has NCCL 2.27.7 and rank 0 has NCCL 2.32.3" in str(obstacle([gpu, {**other, "nccl": "2.27.7"}]))


def test_without_nccl4py_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nccl", None)
    with pytest.raises(NcclMissing, match=r"pip install 'phalanx\[nccl\]', or set elastic.nccl=off"):
        nccl.Library.load()
    assert "pip install 'phalanx[nccl]'" in nccl.offer(0, None, makes_id=True)["why"]
