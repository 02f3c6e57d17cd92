"""The votes of workers whose gradients are added up within the graph: they travel in the same reduction."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from trainer.strategies.strategy import NUM_VOTES


class Votes:
    """What the workers of a group cast and counted; the part of `Agreement` that needs no group.

    Attributes:
        own: float32 [V], this worker's votes.
        sums: float32 [V], those of all workers together, in the last call.
    """

    def __init__(self) -> None:
        with tf.device("CPU:0"):
            self.own = tf.Variable(tf.zeros([NUM_VOTES]), trainable=False, name="own_votes")
            self.sums = tf.Variable(tf.zeros([NUM_VOTES]), trainable=False, name="votes")
        self._last: list[bool] = [False] * NUM_VOTES

    def cast(self, votes: Sequence[bool]) -> None:
        """Hands over this worker's votes for the next call."""
        if list(votes) != self._last:  # an assignment costs as much as a small step
            self._last = list(votes)
            self.own.assign([float(vote) for vote in votes])

    def counted(self) -> list[bool]:
        """For each vote, whether any worker cast it before the last call."""
        return (self.sums.numpy() > 0).tolist()
