"""Which blocks are wanted, who reads which, and which have come: decisions without threads, sockets or a clock.

Blocks are numbered from 0 and taken in that order. Whoever is idle takes the next one, so a slow reader takes fewer. A
block that is long in coming is given to a second reader as well, and the first answer counts: since every reader gives
the same bytes, it does not matter whose.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from cluster.data_service.block import Block

_MOST_READERS = 2  # of one block at a time
_REMEMBERED = 32


class Reader(NamedTuple):
    """Who reads: one connection to a service worker, or one thread of this process.

    Attributes:
        worker: the worker's name.
        number: of the connection or the thread.
    """

    worker: str
    number: int


@dataclass(frozen=True)
class Patience:
    """How long a block may take.

    Attributes:
        hedge_s, hedge_ratio: after so many seconds, and so many times what blocks usually take, a second worker is
            asked as well.
        suspect_s, suspect_ratio: after so much this process reads the block itself, and a reader that is so late
            counts no more as one that answers.
        unknown_s: the same as long as no block has come.
    """

    hedge_s: float = 0.2
    hedge_ratio: float = 3.0
    suspect_s: float = 2.0
    suspect_ratio: float = 8.0
    unknown_s: float = 10.0


PATIENCE = Patience()


class Board:
    """The blocks of one stretch of a training.

    Args:
        num_blocks: that are wanted.
        window: so many blocks from the next wanted one on may be read or lie ready.
        patience: with those who read.

    Attributes:
        window: as given; may be changed.
    """

    def __init__(self, num_blocks: int, window: int, patience: Patience = PATIENCE) -> None:
        self.window = window
        self._num_blocks, self._patience = num_blocks, patience
        self._wanted = 0  # the next one that the training takes
        self._fresh = 0  # the first one that nobody has been given
        self._readers: dict[int, dict[Reader, float]] = {}  # of each block that has not come, and since when
        self._busy: dict[Reader, float] = {}
        self._returned: set[int] = set()  # given back by readers that were lost
        self._refused: set[int] = set()  # a worker said that it cannot: this process finds out why
        self._results: dict[int, Block | BaseException] = {}
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def is_over(self) -> bool:
        """Whether all blocks have been taken."""
        return self._wanted >= self._num_blocks

    def take(self, now: float, reader: Reader) -> int | None:
        """The block that an idle reader shall read; None: nothing is to be done at the moment."""
        index = next(iter(sorted(self._returned)), None)
        if index is None and self._fresh < min(self._num_blocks, self._wanted + self.window):
            index = self._fresh
            self._fresh += 1
        if index is None:
            index = next((i for i in sorted(self._readers) if self._may_hedge(i, now, reader)), None)
        return self._give(index, now, reader)

    def take_here(self, now: float, reader: Reader) -> int | None:
        """The block that this process shall read itself although there are workers; None: none."""
        index = next(iter(sorted(self._refused)), None)
        if index is None:
            late = self._suspect_s()
            index = next(
                (
                    i
                    for i, readers in sorted(self._readers.items())
                    if now - min(readers.values()) >= late and all(other.worker != reader.worker for other in readers)
                ),
                None,
            )
        return self._give(index, now, reader)

    def put(self, now: float, index: int, reader: Reader, result: Block | BaseException) -> None:
        """A block has been read, or nobody can read it. The first answer counts."""
        since = self._busy.pop(reader, now)
        if self._readers.pop(index, None) is None:
            return  # another reader was faster
        self._results[index] = result
        self._durations.append(now - since)

    def give_back(self, index: int, reader: Reader, refused: bool) -> None:
        """A reader has not read its block: it was lost, or it answered that it cannot."""
        self._busy.pop(reader, None)
        readers = self._readers.get(index, {})
        readers.pop(reader, None)
        if index in self._readers and not readers:
            del self._readers[index]
            (self._refused if refused else self._returned).add(index)

    def next_result(self) -> Block | BaseException | None:
        """The next wanted block, which is taken with this; None: it has not come."""
        if (result := self._results.pop(self._wanted, None)) is not None:
            self._wanted += 1
        return result

    def answers(self, now: float, reader: Reader) -> bool:
        """Whether a reader is idle, or not suspiciously late."""
        return now - self._busy.get(reader, now) < self._suspect_s()

    def _give(self, index: int | None, now: float, reader: Reader) -> int | None:
        if index is not None:
            self._returned.discard(index)
            self._refused.discard(index)
            self._readers.setdefault(index, {})[reader] = now
            self._busy[reader] = now
        return index

    def _may_hedge(self, index: int, now: float, reader: Reader) -> bool:
        readers, patience = self._readers[index], self._patience
        if len(readers) >= _MOST_READERS or any(other.worker == reader.worker for other in readers):
            return False
        return now - min(readers.values()) >= self._limit_s(patience.hedge_s, patience.hedge_ratio)

    def _suspect_s(self) -> float:
        return self._limit_s(self._patience.suspect_s, self._patience.suspect_ratio)

    def _limit_s(self, least_s: float, ratio: float) -> float:
        if not self._durations:
            return self._patience.unknown_s
        return max(least_s, ratio * statistics.median(self._durations))
