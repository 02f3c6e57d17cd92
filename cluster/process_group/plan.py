"""Who adds which elements of an all-reduce, and what crosses the network for it.

The elements are cut into blocks. Block (h, k) is summed on host h, by the rank whose turn `k` is there; on every other
host the rank whose turn it is there adds that host's parts of the block, sends them to the owner and gets the sum back.
So each byte crosses the network once a host in each direction, and the work is spread over the ranks of every host.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_ALIGNED_ELEMENTS = 16  # a cache line of the smallest usual type and more


@dataclass(frozen=True)
class Chunk:
    """A range of elements that is sent and added in one go.

    Attributes:
        tag: its number, the same for all ranks.
        begin, end: its elements.
    """

    tag: int
    begin: int
    end: int

    @property
    def num_elements(self) -> int:
        """How many."""
        return self.end - self.begin


@dataclass(frozen=True)
class Block:
    """A range of elements that one rank sums.

    Attributes:
        owner: the rank.
        lane: whose turn it is on each host.
        begin, end: its elements.
        chunks: it, cut.
    """

    owner: int
    lane: int
    begin: int
    end: int
    chunks: tuple[Chunk, ...]


def blocks(
    hosts: Sequence[Sequence[int]], num_elements: int, chunk_elements: int, first: int = 0, first_tag: int = 0
) -> Iterator[Block]:
    """All blocks that are not empty.

    Args:
        hosts: the ranks of each host.
        num_elements: to be summed.
        chunk_elements: the most elements of a chunk.
        first, first_tag: where elements and tags begin.

    >>> [(block.owner, block.begin, block.end) for block in blocks([[0, 1], [2]], 100, 64)]
    [(0, 0, 16), (1, 16, 48), (2, 48, 80), (2, 80, 100)]
    """
    lanes = max(len(host) for host in hosts)
    number = len(hosts) * lanes
    lines = -(-num_elements // _ALIGNED_ELEMENTS)
    tag = first_tag
    for h, host in enumerate(hosts):
        for lane in range(lanes):
            i = h * lanes + lane
            begin = first + min(num_elements, lines * i // number * _ALIGNED_ELEMENTS)
            end = first + min(num_elements, lines * (i + 1) // number * _ALIGNED_ELEMENTS)
            starts = range(begin, end, chunk_elements)
            chunks = tuple(Chunk(tag + j, start, min(end, start + chunk_elements)) for j, start in enumerate(starts))
            tag += len(chunks)
            if chunks:
                yield Block(host[lane % len(host)], lane, begin, end, chunks)


def turn(host: Sequence[int], lane: int) -> int:
    """The rank of a host whose turn a lane is."""
    return host[lane % len(host)]
