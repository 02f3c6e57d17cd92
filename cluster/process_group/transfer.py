"""State from members that have it to members that need it, striped over those who have it.

Where sender and receiver share memory, the arrays go through a few slots of it: while one end fills a slot the other
empties another one, and slots that are used again and again stay in the cache. Nothing is sent but who may use which
slot, and so nothing is checked. Elsewhere chunks of the arrays are frames.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from cluster.assignment import Member
from cluster.process_group.links import Links, Payload, as_bytes
from cluster.process_group.memory import Memory, Region

_ARRAYS, _FILLED, _EMPTIED = 2, 3, 4  # kinds of frames
_CHUNK_BYTES = 512 << 10
_NUM_SLOTS = 8

# What one slot takes: pieces of arrays, one after the other.
_Filling = Sequence[Payload]


class Transfer:
    """One transfer of arrays, seen as one sequence of bytes that is cut into chunks.

    Args:
        members: all, by rank.
        rank: this process's.
        hosts: the ranks of each host; those of one host share memory.
        memory: this process's.
        senders: ranks that all hold the same arrays.
        receivers: ranks that get them.
        arrays: this rank's.

    Raises:
        ValueError: nobody sends, or an array is not contiguous, or it is to be filled and read-only.
    """

    def __init__(
        self,
        members: Sequence[Member],
        rank: int,
        hosts: Sequence[Sequence[int]],
        memory: Memory,
        senders: Sequence[int],
        receivers: Sequence[int],
        arrays: Sequence[np.ndarray],
    ) -> None:
        if not senders:
            raise ValueError("a transfer needs a sender: name at least one rank that holds the arrays")
        for array in arrays:
            if not array.flags.c_contiguous:
                raise ValueError(f"an array of shape {array.shape} is not C-contiguous: pass a contiguous one")
        self._members, self._rank, self._memory = members, rank, memory
        self._host_of = {rank: h for h, host in enumerate(hosts) for rank in host}
        self._senders = sorted(set(senders))
        self._receivers = sorted(set(receivers) - set(senders))
        self._data = [as_bytes(array) for array in arrays]
        if rank in self._receivers and not all(data.flags.writeable for data in self._data):
            raise ValueError("an array to be filled is read-only: pass a writable one")

    def run(self, links: Links) -> None:
        """Sends or receives this rank's part."""
        taken: list[Region] = []
        try:
            if self._rank in self._senders:
                for receiver in self._receivers:
                    if self._rank in self._sources(receiver):
                        self._send(links, receiver, taken)
            elif self._rank in self._receivers:
                for sender in self._sources(self._rank):
                    self._receive(links, sender)
            links.finish()
        finally:
            # A receiver that still reads them has been aborted like this end, and drops what it gets.
            self._memory.give_back(taken)

    def _send(self, links: Links, receiver: int, taken: list[Region]) -> None:
        if not self._are_near(self._rank, receiver):
            chunks = list(_chunks(self._data))
            tags = self._stripe(len(chunks), self._rank, receiver)
            if tags:
                links.send_from(receiver, ((_ARRAYS, tag, chunks[tag]) for tag in tags))
            return
        fillings = list(_fillings(self._data))
        tags = self._stripe(len(fillings), self._rank, receiver)
        if tags:
            taken.append(self._memory.take("transfer", _slots_bytes(len(tags)), True))
            _Slots(links, receiver, taken[-1]).send([(tag, fillings[tag]) for tag in tags])

    def _receive(self, links: Links, sender: int) -> None:
        if not self._are_near(self._rank, sender):
            chunks = list(_chunks(self._data))
            for tag in self._stripe(len(chunks), sender, self._rank):
                links.receive(sender, _ARRAYS, tag, chunks[tag])
            return
        fillings = list(_fillings(self._data))
        tags = self._stripe(len(fillings), sender, self._rank)

        def empty(name: Payload, place: int, tag: int) -> None:
            begin = place % _NUM_SLOTS * _CHUNK_BYTES
            slots = self._slots_of(links, sender, name, _slots_bytes(len(tags)))
            for piece in fillings[tag]:
                piece[:] = slots[begin : begin + len(piece)]
                begin += len(piece)
            links.send(sender, _EMPTIED, tag)

        for place, tag in enumerate(tags):
            links.receive(sender, _FILLED, tag, None, lambda name, place=place, tag=tag: empty(name, place, tag))

    def _slots_of(self, links: Links, sender: int, name: Payload, num_bytes: int) -> np.ndarray:
        try:
            return self._memory.peer(self._members[sender].worker, name.tobytes().decode(), num_bytes)
        except FileNotFoundError:
            links.wait_for_end(5.0)  # the sender has died, and somebody has removed its files: there will be an order
            raise

    def _sources(self, receiver: int) -> list[int]:
        """The nearest senders: those of the receiver's host, where there are any."""
        near = [sender for sender in self._senders if self._are_near(sender, receiver)]
        return near or self._senders

    def _are_near(self, one: int, other: int) -> bool:
        return self._host_of[one] == self._host_of[other]

    def _stripe(self, num_cut: int, sender: int, receiver: int) -> range:
        """The places, in what has been cut, of what a sender sends to a receiver."""
        sources = self._sources(receiver)
        # Several receivers begin with different senders.
        return range((sources.index(sender) + receiver) % len(sources), num_cut, len(sources))


class _Slots:
    """A sender's memory for one receiver."""

    def __init__(self, links: Links, receiver: int, region: Region) -> None:
        self._links, self._receiver, self._region = links, receiver, region
        self._left: Iterator[tuple[int, _Filling]] = iter(())

    def send(self, fillings: Sequence[tuple[int, _Filling]]) -> None:
        """Fills all slots; each again when it has been emptied, which happens in order."""
        self._left = iter(fillings)
        for slot in range(min(_NUM_SLOTS, len(fillings))):
            self._fill(slot)

    def _fill(self, slot: int) -> None:
        tag, filling = next(self._left, (0, None))
        if filling is None:
            return
        begin = slot * _CHUNK_BYTES
        for piece in filling:
            self._region.data[begin : begin + len(piece)] = piece
            begin += len(piece)
        self._links.receive(self._receiver, _EMPTIED, tag, then=lambda _: self._fill(slot))
        self._links.send(self._receiver, _FILLED, tag, self._region.name.encode())


def _slots_bytes(num_fillings: int) -> int:
    return min(_NUM_SLOTS, num_fillings) * _CHUNK_BYTES


def _chunks(data: Sequence[Payload]) -> Iterator[Payload]:
    """Each array for itself, because a frame has one payload."""
    for array in data:
        for begin in range(0, len(array), _CHUNK_BYTES):
            yield array[begin : begin + _CHUNK_BYTES]


def _fillings(data: Sequence[Payload]) -> Iterator[_Filling]:
    """Slots that are full but for the last one, however short the arrays are."""
    filling: list[Payload] = []
    room = _CHUNK_BYTES
    for array in data:
        begin = 0
        while begin < len(array):
            piece = array[begin : begin + room]
            filling.append(piece)
            begin, room = begin + len(piece), room - len(piece)
            if not room:
                yield filling
                filling, room = [], _CHUNK_BYTES
    if filling:
        yield filling
