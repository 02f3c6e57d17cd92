"""Takes steps from blocks of batches: the hand-over from the input pipeline to the inner loop."""

from __future__ import annotations

import time
from typing import NamedTuple

import tensorflow as tf


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

    Args:
        blocks: Elements of `train_blocks`.
        block_steps: K.

    Attributes:
        waited_s: Seconds waited since the caller last set it to 0.
    """

    def __init__(self, blocks: tf.data.Dataset, block_steps: int) -> None:
        self._iterator = iter(blocks)
        self._block_steps = block_steps
        self._block: dict[str, tf.Tensor] = {}
        self._used = block_steps
        self.waited_s = 0.0

    def take(self, most_steps: int) -> Steps:
        """The next steps, at least one and at most `most_steps`.

        Raises:
            tf.errors.OpError: The pipeline failed; see `Source.failure`.
        """
        if self._used == self._block_steps:
            begin = time.perf_counter()
            self._block = next(self._iterator)
            self.waited_s += time.perf_counter() - begin
            self._used = 0
        first = self._used
        num_steps = min(most_steps, self._block_steps - first)
        self._used += num_steps
        return Steps(self._block, first, num_steps)
