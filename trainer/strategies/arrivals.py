"""How many reductions a worker has arrived at, and how long it took to get there: what it alone is to blame for.

In a synchronous step all workers wait for the last one, so their step times are equal. What differs is the time from
the end of one step to the own gradients of the next, and which worker's gradients are missing when nobody goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf


class ArrivalCount(NamedTuple):
    """What a worker has done since it began.

    Attributes:
        arrived: Contributions that were ready: one a step, and those to statistics that are exchanged within it.
        own_s: Seconds that it needed for these, waiting for other workers not counted.
    """

    arrived: int
    own_s: float


class Arrivals:
    """Counts within the graph of a step: two looks at the clock, and no wait that was not there before."""

    def __init__(self) -> None:
        with tf.device("CPU:0"):
            # [steps, seconds, the time at which the last step ended; 0 before the first]
            self._counted = tf.Variable(tf.zeros([3], tf.float64), trainable=False, name="arrivals")

    def arrive(self, contribution: Sequence[tf.Tensor]) -> tf.Operation:
        """To be run once this worker's contribution is there. The reduction must not wait for it."""
        with tf.control_dependencies(contribution), tf.device("CPU:0"):
            ended_at = self._counted[2]
            own_s = tf.where(ended_at > 0, tf.timestamp() - ended_at, 0.0)
            return self._counted.assign_add(tf.stack([tf.ones([], tf.float64), own_s, tf.zeros([], tf.float64)])).op

    def end(self, after: Sequence[tf.Tensor]) -> tf.Operation:
        """To be run when the step is over for all workers."""
        with tf.control_dependencies(after), tf.device("CPU:0"):
            return self._counted[2].assign(tf.timestamp()).op

    def count(self) -> ArrivalCount:
        """What has been counted so far; from any thread, also while a step is stuck."""
        arrived, own_s, _ = self._counted.numpy().tolist()
        return ArrivalCount(int(arrived), own_s)
