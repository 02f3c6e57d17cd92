"""Batch normalisation by the statistics of the whole global batch, whatever the number of parts that it is cut into.

Each part adds up its own samples, a strategy adds up these sums over all parts, and each part normalises by the totals.
The losses of all parts depend on a total, and the gradient of the objective by a part's own sums is therefore the sum,
over all parts, of their gradients by the total: the same exchange again, in the backward pass.

What is added up are distances to the moving mean, which all parts share: E[d^2] - E[d]^2 loses few digits where the
mean of d is small. Keras's own `synchronized=True` adds up x^2.

Sources: synchronised batch normalisation as in MegDet (Peng et al., CVPR 2018); variance from shifted data, Chan,
Golub and LeVeque, "Algorithms for computing the sample variance" (1983).

Shape legend: C channels, N = 2 C + 1 numbers of a part: sums, sums of squares, and how many samples they are of.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

Exchange = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(a part's numbers float32 [N], the part's first position in the global batch int64) -> their sum over all parts
[N]. Traced once for each exchange of a step, forward and backward, in the same order on all parts."""

_own_moments = keras.layers.BatchNormalization._moments
_active = threading.local()


class LayerInLoop(ValueError):
    """A model calls a layer from within a loop or a branch of its graph, where parts could not meet."""


def has_batch_normalisation(model: keras.Model) -> bool:
    """Whether any layer of a model, however deep, normalises by the statistics of a batch."""
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in model._flatten_layers())


@contextlib.contextmanager
def global_statistics(exchange: Exchange | None, first_sample: tf.Tensor) -> Iterator[None]:
    """Within it, layers of batch normalisation use the statistics of all parts. For tracing the forward pass.

    Args:
        exchange: Adds up over the parts; None: each slice is normalised by itself.
        first_sample: int64 scalar, position of the first sample in the global batch.
    """
    previous = getattr(_active, "moments", None)
    graph = tf.compat.v1.get_default_graph()

    def moments(layer: keras.layers.BatchNormalization, inputs: tf.Tensor, mask: tf.Tensor | None):
        if tf.compat.v1.get_default_graph() is not graph:
            raise LayerInLoop(
                f"train.synchronize_batch_norm=true must be for layers that a model calls once after the other, and "
                f"{layer.path} is called within a loop or a branch of its graph: take it out there, or set "
                "train.synchronize_batch_norm=false"
            )
        add_up = exchange
        assert add_up is not None
        return _global_moments(layer, inputs, mask, lambda sums: add_up(sums, first_sample))

    _active.moments = None if exchange is None else moments
    try:
        yield
    finally:
        _active.moments = previous


def shared_sum(sums: tf.Tensor, add_up: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """The sum over all parts, through which gradients flow back to all of them.

    Args:
        sums: Of this part, [N].
        add_up: Gives the sum over all parts, [N]; has no gradient of its own.
    """

    @tf.custom_gradient
    def total(own: tf.Tensor):
        return add_up(own), add_up

    return total(sums)  # type: ignore[return-value]


def _global_moments(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    mask: tf.Tensor | None,
    add_up: Callable[[tf.Tensor], tf.Tensor],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance [C] of a layer's inputs [b, ...] of all parts."""
    rank = len(inputs.shape)
    axis = layer.axis % rank
    axes = [other for other in range(rank) if other != axis]
    channels = inputs.shape[axis]
    assert channels is not None, "Keras builds no such layer without it"
    shift = tf.stop_gradient(keras.ops.cast(layer.moving_mean, inputs.dtype))
    distances = inputs - tf.reshape(shift, [channels if other == axis else 1 for other in range(rank)])
    if mask is None:
        count = tf.cast(tf.size(inputs) // channels, inputs.dtype)
    else:
        # As in Keras, a mask lacks the last axis, which is that of the channels.
        counted = tf.broadcast_to(tf.expand_dims(tf.cast(mask, tf.bool), -1), tf.shape(inputs))
        distances = tf.where(counted, distances, tf.zeros_like(distances))
        count = tf.reduce_sum(tf.cast(counted, inputs.dtype)) / channels
    sums = [tf.reduce_sum(distances, axes), tf.reduce_sum(tf.square(distances), axes), count[None]]
    total = shared_sum(tf.cast(tf.concat(sums, 0), tf.float32), add_up)
    total = tf.cast(tf.ensure_shape(total, [2 * channels + 1]), inputs.dtype)
    distance, square = (tf.math.divide_no_nan(each, total[-1]) for each in tf.split(total[:-1], 2))
    return shift + distance, tf.maximum(square - tf.square(distance), 0.0)


def _moments(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> Any:
    moments = getattr(_active, "moments", None)
    return _own_moments(layer, inputs, mask) if moments is None else moments(layer, inputs, mask)


setattr(keras.layers.BatchNormalization, _own_moments.__name__, _moments)
