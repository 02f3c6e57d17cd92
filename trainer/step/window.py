"""The sums between two logged steps, packed into one vector, so that a loop hands one small tensor to Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

LOSS, WEIGHT = 0, 1
_FIRST_METRIC = 2


@dataclass(frozen=True)
class MetricLayout:
    """Where the sums of each metric lie in the vector [loss, weight, metrics ...].

    Attributes:
        sizes: Length of each metric's sums, by name.
    """

    sizes: Mapping[str, int]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return _FIRST_METRIC + sum(self.sizes.values())

    def pack(self, loss: tf.Tensor, weight: tf.Tensor, sums: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """One vector from scalars `loss` and `weight` and the metrics' sums."""
        parts = [tf.reshape(loss, [1]), tf.reshape(weight, [1])]
        parts += [tf.reshape(tf.cast(sums[name], tf.float32), [size]) for name, size in self.sizes.items()]
        return tf.concat(parts, axis=0)

    def unpack(self, packed: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics' sums by name."""
        sums, start = {}, _FIRST_METRIC
        for name, size in self.sizes.items():
            sums[name] = packed[start : start + size]
            start += size
        return sums


@dataclass(frozen=True)
class WindowLayout:
    """Where the figures of a window lie in `StateTensors.window`: the metrics, then four figures of the steps."""

    metrics: MetricLayout

    @property
    def size(self) -> int:
        """Length of the window vector."""
        return self.metrics.size + 4

    def add(
        self,
        window: tf.Tensor,
        sums: tf.Tensor,
        learning_rate: tf.Tensor,
        gradient_norm: tf.Tensor,
        skipped: tf.Tensor,
    ) -> tf.Tensor:
        """The window with one more step; the learning rate is the newest step's, the rest are sums."""
        kept = window[:-1] + tf.concat([sums, tf.stack([1.0, gradient_norm, skipped])], axis=0)
        return tf.concat([kept, tf.reshape(learning_rate, [1])], axis=0)

    def figures(self, window: np.ndarray) -> dict[str, float]:
        """Means over the window's steps: gradient_norm and skipped_steps where they are not zero, learning_rate."""
        steps, norm, skipped, rate = (float(x) for x in window[self.metrics.size :])
        figures = {"learning_rate": rate}
        if norm and steps:
            figures["gradient_norm"] = norm / steps
        if skipped:
            figures["skipped_steps"] = skipped
        return figures


def mean_loss(packed: np.ndarray) -> float:
    """Sum of the losses over the sum of the weights; NaN for no samples."""
    weight = float(packed[WEIGHT])
    return float(packed[LOSS]) / weight if weight else float("nan")
