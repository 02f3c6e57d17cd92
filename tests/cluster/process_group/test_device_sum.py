import queue
import threading
from collections import defaultdict

import numpy as np
import pytest

from cluster.process_group.device_sum import DeviceSum, FastDeviceSum, Slice
from cluster.process_group.tree import TreeSum
from tests.cluster.process_group.members import part_of


class InMemory:
    """Arithmetic of NumPy's, and what it was asked for."""

    def __init__(self) -> None:
        self.num_added = 0

    def empty(self, num_elements: int) -> np.ndarray:
        return np.full(num_elements, np.nan, np.float32)

    def add(self, left: Slice, right: Slice) -> np.ndarray:
        self.num_added += left.end - left.begin
        return left.array[left.begin : left.end] + right.array[right.begin : right.end]


class Wires:
    """Queues between the threads that stand for members; what each has sent, by rank."""

    def __init__(self) -> None:
        self.queues: dict[tuple[int, int], queue.Queue] = defaultdict(queue.Queue)
        self.sent: dict[tuple[int, int], int] = defaultdict(int)

    def of(self, rank: int) -> "Wire":
        return Wire(self, rank)


class Wire:
    def __init__(self, wires: Wires, rank: int) -> None:
        self._wires, self._rank = wires, rank

    def exchange(self, sends, receives) -> None:
        for peer, (array, begin, end) in sends:
            self._wires.sent[self._rank, peer] += end - begin
            self._wires.queues[self._rank, peer].put(array[begin:end].copy())
        for peer, (array, begin, end) in receives:
            array[begin:end] = self._wires.queues[peer, self._rank].get(timeout=60)

    def add_up_in_place(self, array) -> None:
        raise AssertionError("in one order only")


def sums(hosts: list[list[int]], parts: list[range], num_elements: int, steps: int = 2):
    """What each member has for each step, and the wires."""
    wires, num_parts = Wires(), sum(len(held) for held in parts)
    found: dict[int, list[np.ndarray]] = {}

    def member(rank: int) -> None:
        add_up = DeviceSum(wires.of(rank), InMemory(), hosts, rank, parts, num_parts, num_elements)
        found[rank] = [
            add_up.run([part_of(part, step, num_elements) for part in parts[rank]]).copy() for step in range(steps)
        ]

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(not waiting.empty() for waiting in wires.queues.values()), "all that was sent was expected"
    return [found[rank] for rank in range(len(parts))], wires


def expected(num_parts: int, num_elements: int, step: int) -> np.ndarray:
    total = np.empty(num_elements, np.float32)
    leaves = [(part, part + 1) for part in range(num_parts)]
    TreeSum(leaves, (0, num_parts))([part_of(part, step, num_elements) for part in range(num_parts)], total)
    return total


DEALINGS = [
    ([[0, 1]], [range(0, 1), range(1, 2)]),
    ([[0], [1]], [range(0, 3), range(3, 5)]),
    ([[0, 1, 2]], [range(2, 4), range(0, 2), range(4, 5)]),
    ([[0, 2], [1]], [range(0, 2), range(4, 5), range(2, 4)]),
    ([[0, 1, 2], [3, 4]], [range(i, i + 1) for i in range(5)]),
    ([[0, 3], [1, 4], [2, 5]], [range(0, 2), range(2, 3), range(6, 8), range(8, 8), range(3, 6), range(8, 9)]),
]


@pytest.mark.parametrize(("hosts", "parts"), DEALINGS)
@pytest.mark.parametrize("num_elements", [3, 500])
def test_sums_on_devices_have_the_bits_of_the_tree(hosts, parts, num_elements):
    found, _ = sums(hosts, parts, num_elements)
    for step in range(2):
        total = expected(sum(map(len, parts)), num_elements, step).tobytes()
        assert [steps[step].tobytes() for steps in found] == [total] * len(parts)


def test_as_many_bytes_move_as_in_a_ring():
    num_elements = 4096
    _, wires = sums([[0, 1, 2, 3]], [range(i, i + 1) for i in range(4)], num_elements, steps=1)
    for rank in range(4):
        sent = sum(count for (sender, peer), count in wires.sent.items() if sender == rank != peer)
        assert sent == 2 * num_elements * 3 // 4


def test_each_byte_crosses_the_network_once_a_host_in_each_direction():
    num_elements, hosts = 4096, [[0, 1], [2, 3]]
    _, wires = sums(hosts, [range(2 * i, 2 * i + 2) for i in range(4)], num_elements, steps=1)
    for here, there in (hosts, hosts[::-1]):
        assert sum(wires.sent[sender, peer] for sender in here for peer in there) == num_elements


def test_one_member_needs_no_wire():
    parts = [part_of(part, 0, 40) for part in range(5)]
    total = expected(5, 40, 0).tobytes()
    assert DeviceSum(None, InMemory(), [[0]], 0, [range(5)], 5, 40).run(parts).tobytes() == total
    assert FastDeviceSum(None, InMemory(), 5).run(parts).tobytes() == total


def test_what_does_not_make_up_a_sum_is_refused():
    with pytest.raises(ValueError, match=r"are not 3 parts: give each rank a range"):
        DeviceSum(None, InMemory(), [[0]], 0, [range(2)], 3, 40)
    with pytest.raises(ValueError, match=r"2 members need a wire"):
        DeviceSum(None, InMemory(), [[0, 1]], 0, [range(1), range(1, 2)], 2, 40)
