"""Groups of real processes: sums to the bit, members that die and are replaced, and those that must not get in."""

import contextlib
import dataclasses
import hashlib
import os
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from cluster.process_group.encoding import ENCODINGS
from cluster.process_group.reduction import Reduction, Surroundings
from cluster.reserved_port import split_address
from tests.cluster.process_group.members import Process, ask, first_to_answer, join, members_of, part_of, processes

SMALL, NEAR, WIDE = 100, 20_011, 270_001  # elements: inline, in shared memory at once, in blocks of several chunks
pytestmark = pytest.mark.processes


def tree_sum(parts: list[np.ndarray]) -> np.ndarray:
    """The order of addition that every group has to keep: a node [b, e) is cut at (b + e + 1) // 2."""
    if len(parts) == 1:
        return parts[0]
    middle = (len(parts) + 1) // 2
    return tree_sum(parts[:middle]) + tree_sum(parts[middle:])


def expected(num_parts: int, num_elements: int, steps: int) -> str:
    digest = hashlib.sha256()
    for step in range(steps):
        parts = [part_of(part, step, num_elements) for part in range(num_parts)]
        digest.update(tree_sum(parts).tobytes())
    return digest.hexdigest()


def test_the_order_of_addition_matters_in_these_numbers():
    parts = [part_of(part, 0, SMALL) for part in range(4)]
    assert not np.array_equal(tree_sum(parts), parts[3] + parts[2] + parts[1] + parts[0])


@pytest.mark.parametrize("shares_memory", [True, False])
@pytest.mark.parametrize(
    ("hosts", "dealing"),
    [
        ("aaa", [range(0, 2), range(2, 3), range(3, 4)]),
        ("aba", [range(0, 2), range(3, 5), range(2, 3)]),  # a host's parts lie apart
        ("ab", [range(4, 8), range(0, 4)]),
    ],
)
def test_sums_are_the_same_to_the_bit_however_parts_are_dealt(hosts, dealing, shares_memory, tmp_path):
    num_parts = max(parts.stop for parts in dealing)
    with processes(hosts, tmp_path if shares_memory else None) as group:
        assert join(group, 1) == [("done", None)] * len(hosts)
        for num_elements in (SMALL, NEAR, WIDE):
            answers = ask(group, "sum", dealing, num_parts, num_elements, 5)
            assert answers == [("done", expected(num_parts, num_elements, 5))] * len(hosts)


@pytest.mark.parametrize("encoding", ["bfloat16", "float16", "sparse"])
def test_encoded_sums_are_rounded_once_however_parts_are_dealt(encoding, tmp_path):
    num_exact, rounding = 1600, ENCODINGS[encoding]
    parts = [part_of(part, 0, WIDE, encoding, num_exact) for part in range(5)]
    plain = tree_sum(parts)
    for part in parts:
        rounding.settle(part[num_exact:])
    total = tree_sum(parts)
    rounding.settle(total[num_exact:])
    assert np.array_equal(total, plain) == (encoding == "sparse")
    assert np.array_equal(total[:num_exact], plain[:num_exact])
    for hosts, dealing in (("aa", [range(0, 1), range(1, 5)]), ("aba", [range(0, 2), range(3, 5), range(2, 3)])):
        with processes(hosts, tmp_path) as group:
            join(group, 1)
            answers = ask(group, "sum", dealing, 5, WIDE, 1, encoding, num_exact)
            assert answers == [("done", hashlib.sha256(total.tobytes()).hexdigest())] * len(hosts)


# As gradients come: the last ones first, and then what is left, which holds the first that are encoded.
RANGES = [(200_000, WIDE), (100_000, 200_000), (0, 100_000)]


@pytest.mark.parametrize("hosts", ["aba", "aab"])
def test_sums_in_ranges_that_come_one_after_the_other_have_the_same_bits(hosts, tmp_path):
    dealing = [range(0, 2), range(3, 5), range(2, 3)]
    with processes(hosts, tmp_path) as group:
        join(group, 1)
        assert ask(group, "ranges", dealing, 5, WIDE, 3, RANGES) == [("done", expected(5, WIDE, 3))] * 3
        for encoding in ("bfloat16", "sparse"):
            encoded = ask(group, "ranges", dealing, 5, WIDE, 1, RANGES, encoding, 1600)
            assert encoded == ask(group, "sum", dealing, 5, WIDE, 1, encoding, 1600)


def test_ranges_are_also_taken_one_after_the_other_in_memory(tmp_path):
    dealing = [range(0, 1), range(1, 3)]
    with processes("aa", tmp_path) as group:
        join(group, 1)
        for num_elements, ranges in ((SMALL, [(60, SMALL), (0, 60)]), (WIDE, RANGES)):
            answers = ask(group, "ranges", dealing, 3, num_elements, 3, ranges)
            assert answers == [("done", expected(3, num_elements, 3))] * 2
        group[0].order("ranges", dealing, 3, WIDE, 1, RANGES)
        group[1].order("sum", dealing, 3, WIDE, 1)
        assert "asks for the sum" in group[0].answer()[1]


@pytest.mark.parametrize("host", ["a", "b"])
def test_one_that_is_killed_within_a_range_is_replaced(host, tmp_path):
    dealing = [range(0, 2), range(2, 3)]
    with processes(f"a{host}", tmp_path) as group:
        for generation, number in ((1, 0), (2, 1)):
            join(group, generation)
            survivor, dying = group
            survivor.order("ranges", dealing, 3, WIDE, 1, RANGES)
            dying.order("dies in a range", dealing, 3, WIDE, RANGES, number)
            dying.process.join(20.0)
            assert dying.process.exitcode == -signal.SIGKILL
            survivor.abort(generation)
            assert survivor.answer()[0] == "aborted"
            group[1] = Process(f"w{generation + 2}", host, tmp_path / host)
        join(group, 3)
        assert ask(group, "ranges", dealing, 3, WIDE, 3, RANGES) == [("done", expected(3, WIDE, 3))] * 2


@pytest.mark.parametrize("ranges", [[(0, 5)], [(0, 6), (5, 10)], [(0, 5), (6, 10)], [(0, 5), (5, 11)]])
def test_ranges_that_are_not_the_whole_are_refused(ranges):
    surroundings = Surroundings([], 0, [[0]], None, None)
    with pytest.raises(ValueError, match="must be 10 elements, each of them once"):
        Reduction(surroundings, [], 0, 10, np.float32, ranges=ranges)


def test_the_dead_are_replaced_in_the_same_processes(tmp_path):
    dealing = [range(0, 2), range(2, 4)]
    with processes("aa", tmp_path) as group:
        join(group, 1)
        for generation in range(2, 8):
            dead, survivor = group[generation % 2], group[1 - generation % 2]
            survivor.order("sum", dealing, 4, NEAR, 1000)  # which nobody else begins, or only until it is killed
            dead.process.kill()
            newcomer = Process(f"w{generation + 1}", "a", tmp_path / "a")
            group[generation % 2] = newcomer
            # To be told of the next group ends what a member waits for in the last one.
            members = members_of(group)
            survivor.abort(generation - 1)
            assert survivor.answer()[0] == "aborted"
            for rank, one in enumerate(group):
                one.order("join", members, rank, generation, 20.0)
            assert [one.answer() for one in group] == [("done", None)] * 2
            assert ask(group, "sum", dealing, 4, NEAR, 3) == [("done", expected(4, NEAR, 3))] * 2


@pytest.mark.parametrize("shares_memory", [True, False])
def test_state_goes_to_those_that_lack_it(shares_memory, tmp_path):
    """To a member that two of its host have it for, to one that is alone on its host, and to two at a time."""
    with processes("aaba", tmp_path if shares_memory else None) as group:
        join(group, 1)
        size = 3, 300, 1000  # float64: one sender fills more slots than there are
        for senders, receivers in (([0, 3], [1]), ([0, 1, 3], [2]), ([3], [0, 1])):
            answers = ask(group, "transfer", senders, receivers, size)
            for rank in senders + receivers:
                whole, scalar = (np.frombuffer(array) for array in answers[rank][1][:2])
                assert np.array_equal(whole, np.arange(900_000)) and scalar == 7
            sent = [answer[1][2] for answer in answers]
            assert all(sent[rank] > 0 for rank in senders)
            assert (sum(sent) < 100_000) == (shares_memory and receivers != [2]), "memory that is shared is not sent"


def test_state_comes_from_another_when_its_sender_is_killed(tmp_path):
    with processes("aa", tmp_path) as group:
        join(group, 1)
        receiver, sender = group
        receiver.order("transfer", [1], [0], (300, 10_000))
        sender.order("dies while it sends", [1], [0], (300, 10_000))
        sender.process.join(20.0)
        assert sender.process.exitcode == -signal.SIGKILL
        group[1] = Process("w3", "a", tmp_path / "a")  # which removes the files of the dead one
        receiver.abort(1)
        assert receiver.answer()[0] == "aborted"
        join(group, 2)
        answers = ask(group, "transfer", [1], [0], (300, 10_000))
        assert answers[0][1][:2] == answers[1][1][:2]


def test_a_member_that_never_comes_is_named():
    with processes("ab", None) as group:
        group[0].order("join", members_of(group), 0, 1, 0.5)
        name, what = group[0].answer()
        assert name == "TimeoutError" and "w2" in what


def test_a_stranger_and_a_member_of_an_older_group_do_not_get_in():
    with processes("ab", None) as group:
        stranger = Process("w2", "b", None, key=b"guessed")
        try:
            members = members_of([group[0], stranger])
            group[0].order("join", members, 0, 1, 1.0)
            stranger.order("join", members, 1, 1, 1.0)
            assert group[0].answer()[0] == "TimeoutError"
            assert stranger.answer()[0] in ("TimeoutError", "PeerFault")
        finally:
            stranger.end()
        # Bytes that mean nothing neither join nor keep others out.
        with socket.create_connection(split_address(group[0].address)) as connection:
            connection.sendall(b"\0" * 64)
            assert join(group, 3) == [("done", None)] * 2
        group[0].order("join", members_of(group), 0, 5, 1.0)
        group[1].order("join", members_of(group), 1, 4, 1.0)
        assert [one.answer()[0] for one in group] == ["TimeoutError"] * 2


def test_who_is_stopped_keeps_the_others_waiting_until_the_group_is_ended(tmp_path: Path):
    with processes("aa", tmp_path) as group:
        join(group, 1)
        frozen = group[1].process
        assert frozen.pid is not None
        os.kill(frozen.pid, signal.SIGSTOP)
        group[0].order("gather", b"hello")
        group[0].abort(1)
        assert group[0].answer()[0] == "aborted"
        newcomer = Process("w3", "a", tmp_path / "a")
        try:
            assert join([group[0], newcomer], 2) == [("done", None)] * 2
            assert ask([group[0], newcomer], "gather", b"x") == [("done", [b"x", b"x"])] * 2
        finally:
            newcomer.end()


def test_rejoining_leaks_neither_descriptors_nor_shared_memory(tmp_path):
    def held(one: Process) -> tuple[int, int]:
        return psutil.Process(one.process.pid).num_fds(), len(list((tmp_path / "a").glob(f"{one.worker}.*")))

    dealing = [range(0, 1), range(1, 2)]
    with processes("aa", tmp_path) as group:
        counts = []
        for generation in range(1, 31):
            assert join(group, generation) == [("done", None)] * 2
            for num_elements in (SMALL, NEAR, WIDE):
                answers = ask(group, "sum", dealing, 2, num_elements, 2)
                assert answers == [("done", expected(2, num_elements, 2))] * 2
            counts.append([held(one) for one in group])
        for member in (0, 1):
            early, late = ([of[member] for of in span] for span in (counts[10:20], counts[20:]))
            # A bell is opened when it is first needed, whenever that is.
            assert max(fds for fds, _ in late) <= max(fds for fds, _ in early) + 1
            assert max(files for _, files in late) <= max(files for _, files in early)


def test_members_meet_over_ipv6():
    group = [Process(f"w{number}", host, host_address="::1") for number, host in enumerate("ab")]
    try:
        assert all(one.address.startswith("[::1]:") for one in group)
        assert join(group, 1) == [("done", None)] * 2
        dealing = [range(0, 1), range(1, 2)]
        assert ask(group, "sum", dealing, 2, WIDE, 2) == [("done", expected(2, WIDE, 2))] * 2
    finally:
        for one in group:
            one.end()


class DamagingRelay:
    """Passes on what is sent to an address, and changes one bit of the first long piece once `armed` is set."""

    def __init__(self, address: str) -> None:
        self._address, self.armed = address, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(split_address(self._address))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := bytearray(source.recv(1 << 16)):
                if self.armed.is_set() and len(data) > 4096:
                    self.armed.clear()
                    data[len(data) // 2] ^= 1  # a header is at the beginning or the end
                target.sendall(data)

    def close(self) -> None:
        self._listener.close()


def test_a_member_that_talks_nonsense_is_named():
    with processes("ab", None) as group:
        join(group, 1)
        group[1].order("gather", b"nonsense")  # where a sum is to be agreed upon
        group[0].order("sum", [range(0, 1), range(1, 2)], 2, SMALL, 1)
        kind, what = group[0].answer()
        assert kind == "PeerFault" and "worker w2 on host b" in what and "not JSON" in what


def test_damage_on_the_way_is_found_and_its_sender_named():
    with processes("ab", None) as group:
        relays = [DamagingRelay(one.address) for one in group]
        try:
            members = [
                dataclasses.replace(member, address=relay.address)
                for member, relay in zip(members_of(group), relays, strict=True)
            ]
            for rank, one in enumerate(group):
                one.order("join", members, rank, 1, 20.0)
            assert [one.answer() for one in group] == [("done", None)] * 2
            for relay in relays:
                relay.armed.set()
            for one in group:
                one.order("sum", [range(0, 1), range(1, 2)], 2, 1_000_000, 1)
            names = {"w1": "w2", "w2": "w1"}
            finder = first_to_answer(group)
            kind, what = finder.answer()
            assert kind == "PeerFault" and f"worker {names[finder.worker]} " in what and "checksum" in what
        finally:
            for relay in relays:
                relay.close()
