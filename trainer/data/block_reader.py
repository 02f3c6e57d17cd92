"""Takes steps from blocks of batches: the hand-over from the input pipeline to the inner loop."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tensorflow as tf

_END_S = 10.0


class Steps(NamedTuple):
    """Consecutive steps of one block.

    Attributes:
        block: Features by name, each [K, B, ...].
        first: Index of the first step in the block.
        num_steps: How many steps to take.
    """

    block: dict[str, tf.Tensor]
    first: int
    num_steps: int


class BlockReader:
    """Reads blocks as they are used up, and measures how long the caller waited for them.

    A thread fetches the next block while the caller uses the last one: asking a tf.data iterator for an element that
    lies ready still costs half a millisecond beside a busy step, because another thread has to wake up for it.

    Args:
        blocks: Elements of `train_blocks`, or what gives the same.
        block_steps: K.
        first: Index of the first step to take in the first block.

    Attributes:
        waited_s: Seconds waited since the caller last set it to 0.
    """

    def __init__(self, blocks: Iterable[dict[str, tf.Tensor]], block_steps: int, first: int = 0) -> None:
        self._block_steps, self._first = block_steps, first
        self._block: dict[str, tf.Tensor] = {}
        self._used = block_steps
        self.waited_s = 0.0
        wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._wanted, self._fetched = wanted, queue.SimpleQueue()
        # The thread must not hold the reader, so that it ends with a reader that nobody closed.
        self._end = weakref.finalize(self, wanted.put, False)
        self._thread = threading.Thread(
            target=_fetch, args=(iter(blocks), wanted, self._fetched), name="block-reader", daemon=True
        )
        self._thread.start()
        wanted.put(True)

    def take(self, most_steps: int) -> Steps:
        """The next steps, at least one and at most `most_steps`.

        Raises:
            StopIteration: All steps have been taken.
            tf.errors.OpError: The pipeline failed; see `Source.failure`.
        """
        if self._used == self._block_steps:
            begin = time.perf_counter()
            fetched = self._fetched.get()
            self.waited_s += time.perf_counter() - begin
            if isinstance(fetched, BaseException):
                self._fetched.put(fetched)  # for a caller who asks again
                raise fetched
            self._block, self._used, self._first = fetched, self._first, 0
            self._wanted.put(True)
        first = self._used
        num_steps = min(most_steps, self._block_steps - first)
        self._used += num_steps
        return Steps(self._block, first, num_steps)

    def give_back(self, num_steps: int) -> None:
        """Returns the last steps of those taken last: they are taken again."""
        assert num_steps <= self._used, "no more than was taken of this block"
        self._used -= num_steps

    def abandon(self) -> None:
        """Has the thread end by itself, when it has fetched what it is fetching; nobody waits for that."""
        self._end()

    def close(self) -> None:
        """Ends the thread, when it has fetched what it is fetching."""
        self.abandon()
        self._thread.join(_END_S)


def _fetch(
    blocks: Iterator[dict[str, tf.Tensor]],
    wanted: queue.SimpleQueue[bool],
    fetched: queue.SimpleQueue[dict[str, tf.Tensor] | BaseException],
) -> None:
    """Fetches a block for each True, until False or an error."""
    while wanted.get():
        try:
            fetched.put(next(blocks))
        except BaseException as error:
            fetched.put(error)
            return
