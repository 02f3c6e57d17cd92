"""All-reduce: the sum of all parts in one fixed order, bit-equal wherever the parts were computed.

Four ways, chosen by size and place when a reduction is prepared:

- near: all members share memory and the sum is not large: each tells the others that its parts are there, and each
  adds all of them straight from the others' memory. No payload moves.
- shared: all members share memory and the sum is large: each adds some blocks of it, into one result for all.
- small: every member sends its pieces to every other, and each adds all of them. One hop, payloads in the frames.
- wide: each block of elements is summed by one member, which reads its host's parts from memory and gets the other
  hosts' over the network, and the sums are gathered. Two hops.

In the first two, members tell each other through counters in memory, in the others through frames.

A large sum may be taken in ranges, one after the other and each in an operation of its own, so that it begins before
all of it is there. What is said of runs below then holds: a run ends with its last range.

Why no memory is overwritten while somebody reads it. There are two sets of own parts and of results, used alternately.
A member fills set s for run t only after run t-1 returned, in which it heard from every host peer. In the near way
that peer spoke in run t-1 after it had read all parts of run t-2, the last ones in set s; in the shared and the wide
way run t-1 returns only when all host peers are done reading. A result of run t-2 is written over in run t by host
peers that have heard from all members that these have begun run t, where the result of t-2 is not valid any more.
Frames order these accesses, because a system call that sends happens before the one that receives it; so do counters
(`meeting.py`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.assignment import Member
from cluster.process_group.encoding import ENCODINGS, WrongEncoding
from cluster.process_group.links import Links, Payload, as_bytes, checksum_of
from cluster.process_group.meeting import ARRIVED, DONE, KEEPS_ORDER, PAGE_BYTES, Meeting, patience_s
from cluster.process_group.memory import Memory, Region
from cluster.process_group.plan import Chunk, blocks, turn
from cluster.process_group.tree import Node, TreeSum, pieces

_READY, _DONE, _PIECES, _SUM, _SMALL = 10, 11, 12, 13, 14  # kinds of frames

# Where `benchmarks/collectives.py` found the ways to cross, and the chunks that cost least.
_SHARED_CHUNK_BYTES = 128 << 10  # so that what is added stays in the second-level cache
_WIDE_CHUNK_BYTES = 512 << 10  # a frame costs as much time as 50 kB of it
_SMALL_BYTES = 128 << 10  # of one member's pieces
_NEAR_BYTES = 256 << 10  # of all parts
_NEAR_BYTES_CROWDED = 1 << 20  # where members wait for a processor, and to meet twice takes longer than to add twice


@dataclass
class Surroundings:
    """What a reduction knows of its group.

    Attributes:
        members: all, by rank.
        rank: this process's.
        hosts: the ranks of each host; those of one host share memory.
        memory: this process's.
        operation: begins an operation and gives the connections for it.
    """

    members: Sequence[Member]
    rank: int
    hosts: Sequence[Sequence[int]]
    memory: Memory
    operation: Callable[[bool], AbstractContextManager[Links]]


@dataclass
class _Range:
    """Elements that are added in one operation, and what this rank does for them.

    Attributes:
        begin, end: The elements.
        owned: Chunks that this rank sums, each with (rank, host) of the others that send pieces.
        sent: Chunks of which this rank sends its host's pieces, by the rank that sums them.
    """

    begin: int
    end: int
    owned: list[tuple[Chunk, list[tuple[int, int]]]] = field(default_factory=list)
    sent: dict[int, list[Chunk]] = field(default_factory=dict)


class Reduction:
    """A sum that is taken again and again. Made by `ProcessGroup.reduction`."""

    def __init__(
        self,
        surroundings: Surroundings,
        parts: Sequence[range],
        num_parts: int,
        num_elements: int,
        dtype: Any,
        encoding: str | None = None,
        num_exact: int = 0,
        ranges: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._check_parts(parts, num_parts, len(surroundings.members))
        self._ranges = [_Range(begin, end) for begin, end in ranges or [(0, num_elements)]]
        self._check_ranges(num_elements)
        if encoding is not None and (encoding not in ENCODINGS or np.dtype(dtype) != np.float32):
            raise ValueError(f"{encoding} of {np.dtype(dtype)} must be one of {', '.join(ENCODINGS)} of float32")
        self._encoding_name, self._encoding = encoding, None if encoding is None else ENCODINGS[encoding]
        self._num_exact = num_exact if encoding is not None else num_elements
        self._group = surroundings
        self._parts = [list(held) for held in parts]
        self._num_parts = num_parts
        self._num_elements = num_elements
        self._dtype = np.dtype(dtype)
        self._num_bytes = num_elements * self._dtype.itemsize
        self._set = 0
        self._next = 0  # of the ranges
        rank = surroundings.rank
        self._host = next(host for host in surroundings.hosts if rank in host)
        self._mates = [other for other in self._host if other != rank]
        # No bound method: the memory of a reduction is free when nobody has it any more, not some time later.
        self._way = self._choose_way()
        self._own_regions: list[list[Region]] = []
        self._result_regions: list[Region] = []
        self._own: list[list[np.ndarray]] = []
        self._results: list[np.ndarray] = []
        self._near_parts: list[dict[int, np.ndarray]] = []  # of this host, for each set
        self._buffers: list[Payload] = []
        self._counters: list[Region] = []
        self._meeting: Meeting | None = None
        self._num_runs = 0

    @staticmethod
    def _check_parts(parts: Sequence[range], num_parts: int, num_members: int) -> None:
        if len(parts) != num_members or sorted(part for held in parts for part in held) != list(range(num_parts)):
            raise ValueError(
                f"{[list(held) for held in parts]} are not {num_parts} parts dealt to {num_members} members: give each "
                "rank a range, together all parts once"
            )

    def _check_ranges(self, num_elements: int) -> None:
        ascending = sorted((each.begin, each.end) for each in self._ranges)
        ends = [0, *(end for _, end in ascending)]
        if [begin for begin, _ in ascending] != ends[:-1] or ends[-1] != num_elements:
            raise ValueError(
                f"the ranges {ascending} must be {num_elements} elements, each of them once: let each begin where "
                "another one ends"
            )

    def _choose_way(self) -> Callable[["Reduction", Links, np.ndarray, _Range], None]:
        most = max(len(pieces(held, self._num_parts)) for held in self._parts)
        is_whole = len(self._ranges) == 1
        if len(self._group.hosts) == 1 and self._mates and KEEPS_ORDER:
            # Not the processors that this process may use: all members have to choose the same way.
            is_crowded = len(self._host) > (os.cpu_count() or 1)
            near_bytes = _NEAR_BYTES_CROWDED if is_crowded else _NEAR_BYTES
            is_near = is_whole and self._num_parts * self._num_bytes <= near_bytes
            return Reduction._run_near if is_near else Reduction._run_shared
        return Reduction._run_small if is_whole and most * self._num_bytes <= _SMALL_BYTES else Reduction._run_wide

    @property
    def _counts(self) -> bool:
        """Whether members tell each other through counters in memory."""
        return self._way in (Reduction._run_near, Reduction._run_shared)

    @property
    def _shares_result(self) -> bool:
        """Whether the members of this host write one result together, in the memory of the first of them."""
        return self._way in (Reduction._run_wide, Reduction._run_shared) and len(self._host) > 1

    # Preparation

    def offer(self) -> dict[str, Any]:
        """Takes memory; what the other members must know of it, for JSON."""
        group, memory = self._group, self._group.memory
        num_own = len(self._parts[group.rank])
        for overwrite in (False, True):
            self._own_regions.append([])
            for _ in range(num_own):
                self._own_regions[-1].append(memory.take("own", self._num_bytes, overwrite))
        if not self._shares_result:
            self._result_regions = [memory.take("private", self._num_bytes, True) for _ in range(2)]
        elif group.rank == self._host[0]:
            self._result_regions = [memory.take("result", self._num_bytes, True) for _ in range(2)]
        if self._counts:
            self._counters = [memory.take("counters", PAGE_BYTES, True)]
            self._counters[0].data[:] = 0
        return {
            "sum": [
                *(self._num_parts, self._num_elements, self._dtype.str, self._parts),
                *(self._encoding_name, self._num_exact),
                [(each.begin, each.end) for each in self._ranges],
            ],
            "own": [[region.name for region in regions] for regions in self._own_regions],
            "results": [region.name for region in self._result_regions],
            "counters": [region.name for region in self._counters],
            "known": memory.names(),
        }

    def connect(self, offers: Sequence[dict[str, Any]]) -> None:
        """Maps what the members of this host offer."""
        group, memory, rank = self._group, self._group.memory, self._group.rank

        def array(data: np.ndarray) -> np.ndarray:
            return data[: self._num_bytes].view(self._dtype)

        self._own = [[array(region.data) for region in regions] for regions in self._own_regions]
        self._near_parts = [dict(zip(self._parts[rank], own, strict=True)) for own in self._own]
        if self._way != Reduction._run_small:
            for mate in self._mates:
                worker = group.members[mate].worker
                for near, names in zip(self._near_parts, offers[mate]["own"], strict=True):
                    for part, name in zip(self._parts[mate], names, strict=True):
                        near[part] = array(memory.peer(worker, name, self._num_bytes))
        if self._shares_result and rank != self._host[0]:
            first = self._host[0]
            worker = group.members[first].worker
            self._results = [array(memory.peer(worker, name, self._num_bytes)) for name in offers[first]["results"]]
        else:
            self._results = [array(region.data) for region in self._result_regions]
        if self._counts:
            names = [(group.members[mate].worker, offers[mate]["counters"][0]) for mate in self._mates]
            mates = [(worker, memory.peer(worker, name, PAGE_BYTES)) for worker, name in names]
            self._meeting = Meeting(memory, self._counters[0].data, mates, patience_s(len(self._host)))
        self._plan()

    def _plan(self) -> None:
        group, rank = self._group, self._group.rank
        everything = (0, self._num_parts)
        member_pieces = [pieces(held, self._num_parts) for held in self._parts]
        host_parts = [[part for member in host for part in self._parts[member]] for host in group.hosts]
        host_pieces = [pieces(held, self._num_parts) for held in host_parts]
        away = [h for h, host in enumerate(group.hosts) if host is not self._host]
        self._near_order = sorted(self._near_parts[0]) if self._way != Reduction._run_small else self._parts[rank]
        near_leaves = [(part, part + 1) for part in self._near_order]
        if self._way == Reduction._run_small:
            self._member_pieces = member_pieces
            self._own_sums = self._piece_sums(member_pieces[rank])
            self._add = TreeSum([node for nodes in member_pieces for node in nodes], everything)
            return
        self._own_sums = self._piece_sums(host_pieces[group.hosts.index(self._host)])
        self._add = TreeSum([*near_leaves, *(node for h in away for node in host_pieces[h])], everything)
        if self._way == Reduction._run_near:
            return
        chunk_bytes = _SHARED_CHUNK_BYTES if self._way == Reduction._run_shared else _WIDE_CHUNK_BYTES
        chunk_elements = max(16, chunk_bytes // self._dtype.itemsize)
        self._settled = {h: [end - begin == 1 for begin, end in nodes] for h, nodes in enumerate(host_pieces)}
        for each in self._ranges:
            # What is encoded and what is not are chunks of their own.
            middle = min(max(each.begin, self._num_exact), each.end)
            all_blocks = list(blocks(group.hosts, middle - each.begin, chunk_elements, first=each.begin))
            tag = max((block.chunks[-1].tag + 1 for block in all_blocks), default=0)
            all_blocks += blocks(group.hosts, each.end - middle, chunk_elements, first=middle, first_tag=tag)
            for block in all_blocks:
                if block.owner == rank:
                    others = [(turn(group.hosts[h], block.lane), h) for h in away]
                    each.owned += [(chunk, others) for chunk in block.chunks]
                elif block.owner not in self._host and turn(self._host, block.lane) == rank:
                    each.sent.setdefault(block.owner, []).extend(block.chunks)

    def _piece_sums(self, nodes: Sequence[Node]) -> list[tuple[TreeSum, list[int]]]:
        """How each piece is added from its parts."""
        return [(TreeSum([(part, part + 1) for part in range(*node)], node), list(range(*node))) for node in nodes]

    def release(self) -> None:
        """Gives the memory back. What was handed out last, and may not have been reduced, is overwritten last."""
        for regions in self._own_regions if self._set else reversed(self._own_regions):
            self._group.memory.give_back(regions)
        self._group.memory.give_back([*self._result_regions, *self._counters])
        self._own_regions, self._result_regions, self._counters = [], [], []

    # Use

    @property
    def own(self) -> Sequence[np.ndarray]:
        """Where this rank puts its parts before the next `run`: one array [num_elements] each, 64-byte aligned.

        To be asked for anew before every run. What was put there outlives the group: it stays as it is until the first
        `run` of a reduction of a later generation.
        """
        for region in self._own_regions[self._set] if self._own_regions else ():
            region.keeps = True
        return self._own[self._set]

    def run(self) -> np.ndarray:
        """The sum [num_elements] of all parts, 64-byte aligned.

        It is valid until the next-but-one run, or the first run of a later generation. It is writable, so that DLPack
        can wrap it, but must not be written: the members of a host share it.

        Raises:
            GroupAborted: the generation was ended.
            PeerFault: a member sent something wrong.
        """
        out = self._results[self._set]
        while self._next < len(self._ranges):
            self._add_range(looks=True)
        for region in self._own_regions[self._set]:
            region.keeps = False
        self._set ^= 1
        self._next = 0
        return out

    def run_range(self) -> None:
        """Adds up the next range, of which the own parts are there, beside arithmetic; `run` does those that are left.

        The thread sleeps whenever it waits, because the processors belong to the arithmetic. It may be another one than
        that of `run`, as long as no two of them use the group at a time.

        Raises:
            GroupAborted: the generation was ended.
            PeerFault: a member sent something wrong.
        """
        self._add_range(looks=False)

    def _add_range(self, looks: bool) -> None:
        out, each = self._results[self._set], self._ranges[self._next]
        self._num_runs += 1
        if self._encoding is not None:
            for array in self._own[self._set]:
                self._encoding.settle(array[max(each.begin, self._num_exact) : max(each.end, self._num_exact)])
        with self._group.operation(looks) as links:
            self._way(self, links, out, each)
        self._next += 1

    def _run_small(self, links: Links, out: np.ndarray, _: _Range) -> None:
        rank, own = self._group.rank, self._near_parts[self._set]
        received: list[np.ndarray] = []
        mine = np.empty((len(self._own_sums), self._num_elements), self._dtype)
        for row, (add, held) in zip(mine, self._own_sums, strict=True):
            add([own[part] for part in held], row)
        checksum = checksum_of(as_bytes(mine))
        for other, nodes in enumerate(self._member_pieces):
            if other == rank:
                received.append(mine)
                continue
            received.append(np.empty((len(nodes), self._num_elements), self._dtype))
            if mine.nbytes:
                links.send(other, _SMALL, payload=as_bytes(mine), checksum=checksum)
            if received[-1].nbytes:
                links.receive(other, _SMALL, target=as_bytes(received[-1]))
        links.finish()
        self._add([row for rows in received for row in rows], out)
        self._settle(out)

    def _run_near(self, links: Links, out: np.ndarray, _: _Range) -> None:
        self._meet(links, ARRIVED)
        near = self._near_parts[self._set]
        self._add([near[part] for part in self._near_order], out)
        self._settle(out)

    def _run_shared(self, links: Links, out: np.ndarray, each: _Range) -> None:
        self._meet(links, ARRIVED)
        near = self._near_parts[self._set]
        leaves = [near[part] for part in self._near_order]
        for chunk, _ in each.owned:
            self._add([leaf[chunk.begin : chunk.end] for leaf in leaves], out[chunk.begin : chunk.end])
            if self._encodes(chunk):
                self._settle(out[chunk.begin : chunk.end], 0)
        self._meet(links, DONE)

    def _encodes(self, chunk: Chunk) -> bool:
        return chunk.begin >= self._num_exact

    def _settle(self, total: np.ndarray, num_exact: int | None = None) -> None:
        """Rounds a sum as if it had travelled."""
        if self._encoding is not None:
            self._encoding.settle(total[self._num_exact if num_exact is None else num_exact :])

    def _meet(self, links: Links, counter: int) -> None:
        assert self._meeting is not None
        self._meeting.tell(counter, self._num_runs)
        self._meeting.wait(links, counter, self._num_runs)

    def _run_wide(self, links: Links, out: np.ndarray, each: _Range) -> None:
        _WideRun(self, links, out, each).run()


class _WideRun:
    """One range of a run of the wide way: what has come and what is missing."""

    def __init__(self, reduction: Reduction, links: Links, out: np.ndarray, each: _Range) -> None:
        self._reduction = reduction
        self._owned, self._sent = each.owned, each.sent
        self._links = links
        self._out = out
        near = reduction._near_parts[reduction._set]
        self._near = near
        self._leaves = [near[part] for part in reduction._near_order]
        self._mates_missing = len(reduction._mates)
        self._arrived: dict[int, list[Payload | None]] = {
            chunk.tag: [None] * len(others) for chunk, others in self._owned
        }
        self._missing = {chunk.tag: len(others) for chunk, others in self._owned}
        self._chunks_left = len(self._owned) + sum(len(chunks) for chunks in self._sent.values())

    def run(self) -> None:
        """Returns when the whole sum is there, and all host peers are done reading this rank's parts."""
        reduction, links = self._reduction, self._links
        for mate in reduction._mates:
            links.receive(mate, _READY, then=self._on_ready)
            links.receive(mate, _DONE)
        for chunk, others in self._owned:
            for i, (sender, host) in enumerate(others):
                num_bytes = len(reduction._settled[host]) * chunk.num_elements * reduction._dtype.itemsize
                links.receive(
                    sender,
                    _PIECES,
                    chunk.tag,
                    None if reduction._encodes(chunk) else lambda num_bytes=num_bytes: self._buffer(num_bytes),
                    lambda data, chunk=chunk, i=i, others=others: self._on_pieces(chunk, i, others, data),
                )
        for owner, chunks in self._sent.items():
            for chunk in chunks:
                if reduction._encodes(chunk):
                    links.receive(
                        owner,
                        _SUM,
                        chunk.tag,
                        None,
                        lambda data, owner=owner, chunk=chunk: self._on_encoded_sum(owner, chunk, data),
                    )
                    continue
                links.receive(
                    owner, _SUM, chunk.tag, as_bytes(self._out[chunk.begin : chunk.end]), lambda _: self._finish_chunk()
                )
        for mate in reduction._mates:
            links.send(mate, _READY)
        if not reduction._mates:
            self._begin()
        links.finish()

    def _on_ready(self, _: Payload) -> None:
        self._mates_missing -= 1
        if not self._mates_missing:
            self._begin()

    def _begin(self) -> None:
        """All parts of this host are there."""
        for owner, chunks in self._sent.items():
            self._links.send_from(owner, self._pieces(chunks))
        if not self._chunks_left:
            self._tell_done()
        for chunk, others in self._owned:
            if not self._missing[chunk.tag]:
                self._sum(chunk, others)

    def _pieces(self, chunks: Sequence[Chunk]) -> Iterator[tuple[int, int, Payload]]:
        """This host's pieces of each chunk, one after the other.

        A host that holds no parts sends empty frames: no sum must arrive in the result that its members share before
        all of them have begun this run.
        """
        sums, dtype = self._reduction._own_sums, self._reduction._dtype
        staging = np.empty((len(sums), max(chunk.num_elements for chunk in chunks)), dtype).reshape(-1)
        encoding, own_host = self._reduction._encoding, self._reduction._group.hosts.index(self._reduction._host)
        for chunk in chunks:
            if encoding is not None and self._reduction._encodes(chunk):
                rows = staging[: len(sums) * chunk.num_elements].reshape(len(sums), chunk.num_elements)
                for row, (add, held) in zip(rows, sums, strict=True):
                    add([self._near[part][chunk.begin : chunk.end] for part in held], row)
                settled = self._reduction._settled[own_host]
                encoded = encoding.encode(list(zip(rows, settled, strict=True))) if sums else as_bytes(rows)
                yield _PIECES, chunk.tag, encoded
                continue
            if len(sums) == 1 and len(sums[0][1]) == 1:
                yield _PIECES, chunk.tag, as_bytes(self._near[sums[0][1][0]][chunk.begin : chunk.end])
                continue
            filled = staging[: len(sums) * chunk.num_elements].reshape(len(sums), chunk.num_elements)
            for row, (add, held) in zip(filled, sums, strict=True):
                add([self._near[part][chunk.begin : chunk.end] for part in held], row)
            yield _PIECES, chunk.tag, as_bytes(filled)

    def _buffer(self, num_bytes: int) -> Payload:
        """Reused within the run, so that it stays in the cache."""
        buffers = self._reduction._buffers
        for i, buffer in enumerate(buffers):
            if len(buffer) >= num_bytes:
                return buffers.pop(i)[:num_bytes]
        return np.empty(num_bytes, np.uint8)

    def _on_pieces(self, chunk: Chunk, i: int, others: list[tuple[int, int]], data: Payload) -> None:
        self._arrived[chunk.tag][i] = data
        self._missing[chunk.tag] -= 1
        if not self._missing[chunk.tag] and not self._mates_missing:
            self._sum(chunk, others)

    def _sum(self, chunk: Chunk, others: list[tuple[int, int]]) -> None:
        reduction = self._reduction
        arrived = self._arrived.pop(chunk.tag)
        leaves = [leaf[chunk.begin : chunk.end] for leaf in self._leaves]
        for data, (rank, host) in zip(arrived, others, strict=True):
            if data is not None and reduction._encodes(chunk):
                leaves.extend(self._decoded(rank, data, chunk, reduction._settled[host]))
            elif data is not None:
                leaves.extend(data.view(reduction._dtype).reshape(-1, chunk.num_elements))
        out = self._out[chunk.begin : chunk.end]
        reduction._add(leaves, out)
        told = as_bytes(out)
        if reduction._encoding is not None and reduction._encodes(chunk):
            reduction._encoding.settle(out)
            told = reduction._encoding.encode([(out, True)])
        else:
            reduction._buffers += [_whole(data) for data in arrived if data is not None]
        checksum = checksum_of(told)
        for rank, _ in others:
            self._links.send(rank, _SUM, chunk.tag, told, checksum)
        self._finish_chunk()

    def _on_encoded_sum(self, owner: int, chunk: Chunk, data: Payload) -> None:
        self._out[chunk.begin : chunk.end] = self._decoded(owner, data, chunk, [True])[0]
        self._finish_chunk()

    def _decoded(self, rank: int, data: Payload, chunk: Chunk, settled: Sequence[bool]) -> list[np.ndarray]:
        encoding = self._reduction._encoding
        assert encoding is not None
        if not settled:
            return []
        try:
            return encoding.decode(data, chunk.num_elements, settled)
        except WrongEncoding as error:
            raise self._links.fault(rank, str(error)) from None

    def _finish_chunk(self) -> None:
        self._chunks_left -= 1
        if not self._chunks_left and not self._mates_missing:
            self._tell_done()

    def _tell_done(self) -> None:
        for mate in self._reduction._mates:
            self._links.send(mate, _DONE)


def _whole(data: Payload) -> Payload:
    return data if data.base is None else data.base
