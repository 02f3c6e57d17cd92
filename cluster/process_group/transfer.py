"""State from members that have it to members that need it, striped over those who have it."""

from collections.abc import Iterator, Sequence

import numpy as np

from cluster.process_group.links import Links, Payload, as_bytes

_CHUNK_BYTES = 512 << 10


class Transfer:
    """One transfer of arrays, seen as one sequence of bytes that is cut into chunks.

    Args:
        hosts: the ranks of each host.
        senders: ranks that all hold the same arrays.
        receivers: ranks that get them.
        arrays: this rank's.

    Raises:
        ValueError: nobody sends, or an array is not contiguous.
    """

    def __init__(
        self,
        hosts: Sequence[Sequence[int]],
        senders: Sequence[int],
        receivers: Sequence[int],
        arrays: Sequence[np.ndarray],
    ) -> None:
        if not senders:
            raise ValueError("a transfer needs a sender: name at least one rank that holds the arrays")
        for array in arrays:
            if not array.flags.c_contiguous:
                raise ValueError(f"an array of shape {array.shape} is not C-contiguous: pass a contiguous one")
        self._host_of = {rank: h for h, host in enumerate(hosts) for rank in host}
        self._senders = sorted(set(senders))
        self._receivers = sorted(set(receivers) - set(senders))
        self._data = [as_bytes(array) for array in arrays]

    def check_writable(self, rank: int) -> None:
        """Raises ValueError if this rank is to be filled and an array of its cannot be."""
        if rank in self._receivers and not all(data.flags.writeable for data in self._data):
            raise ValueError("an array to be filled is read-only: pass a writable one")

    def run(self, links: Links, rank: int, kind: int) -> None:
        """Sends or receives this rank's part."""
        if rank in self._senders:
            for receiver in self._receivers:
                stripes = self._stripes(rank, receiver)
                if stripes:
                    links.send_from(receiver, self._frames(stripes, kind))
        elif rank in self._receivers:
            for sender in self._sources(rank):
                for tag in self._stripes(sender, rank):
                    links.receive(sender, kind, tag, self._chunks()[tag])
        links.finish()

    def _sources(self, receiver: int) -> list[int]:
        """The nearest senders: those of the receiver's host, where there are any."""
        near = [sender for sender in self._senders if self._host_of[sender] == self._host_of[receiver]]
        return near or self._senders

    def _stripes(self, sender: int, receiver: int) -> list[int]:
        sources = self._sources(receiver)
        if sender not in sources:
            return []
        # Several receivers begin with different senders.
        first = (sources.index(sender) + receiver) % len(sources)
        return list(range(first, len(self._chunks()), len(sources)))

    def _frames(self, tags: Sequence[int], kind: int) -> Iterator[tuple[int, int, Payload]]:
        chunks = self._chunks()
        for tag in tags:
            yield kind, tag, chunks[tag]

    def _chunks(self) -> list[Payload]:
        if not hasattr(self, "_cut"):
            self._cut = [
                data[begin : begin + _CHUNK_BYTES] for data in self._data for begin in range(0, len(data), _CHUNK_BYTES)
            ]
        return self._cut
