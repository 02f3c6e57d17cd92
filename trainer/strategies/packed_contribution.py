"""A contribution as one vector for each type of number: what a reducer of whole tensors adds up in one go.

How a reducer cuts and joins tensors may depend on when they come, and with three workers the order of a sum with it.
One vector of a fixed length is always cut alike, so that the sum is the same to the bit.
"""

from __future__ import annotations

import math

import tensorflow as tf

from trainer.step.state_tensors import Contribution
from trainer.step.window import LOSS
from trainer.strategies.strategy import NUM_VOTES


class PackedContribution:
    """Packs and unpacks the contributions of one step, inside of a graph; the votes are packed in with them.

    The layout is found while `pack` is traced; the other methods may be traced after it.

    Args:
        sent_as: Type of gradients on their way, where they are float32 and it is another one; None to leave them.
    """

    def __init__(self, sent_as: tf.DType | None = None) -> None:
        self._sent_as = sent_as
        self._num_gradients = 0
        self._kinds: list[tf.DType] = []  # of the gradients as they were
        self._specs: list[tf.TensorSpec] = []
        self._types: list[tf.DType] = []

    def pack(self, contribution: Contribution, votes: tf.Tensor) -> list[tf.Tensor]:
        """A vector for each type.

        Args:
            contribution: Of which all shapes are known.
            votes: float32 [V].
        """
        gradients = [self._sent(gradient) for gradient in contribution.gradients]
        tensors = [*gradients, *contribution.statistics, contribution.sums, votes]
        self._num_gradients = len(gradients)
        self._kinds = [gradient.dtype for gradient in contribution.gradients]
        self._specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
        self._types = list(dict.fromkeys(tensor.dtype for tensor in tensors))
        return [
            tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors if tensor.dtype == dtype], 0)
            for dtype in self._types
        ]

    def unpack(self, vectors: list[tf.Tensor]) -> Contribution:
        """The contribution that the vectors hold, without the votes."""
        by_type = dict(zip(self._types, vectors, strict=True))
        begins = dict.fromkeys(self._types, 0)
        tensors = []
        for spec in self._specs:
            begin, size = begins[spec.dtype], _size(spec)
            tensors.append(tf.reshape(by_type[spec.dtype][begin : begin + size], spec.shape))
            begins[spec.dtype] = begin + size
        *tensors, sums, _ = tensors
        gradients = zip(tensors[: self._num_gradients], self._kinds, strict=True)
        return Contribution(
            tuple(tf.cast(gradient, kind) for gradient, kind in gradients), tuple(tensors[self._num_gradients :]), sums
        )

    def votes(self, vectors: list[tf.Tensor]) -> tf.Tensor:
        """Their votes, float32 [V]."""
        return self._float_vector(vectors)[-NUM_VOTES:]

    def verdict(self, vectors: list[tf.Tensor]) -> Contribution:
        """All that `Apply.accepts` looks at, in as few pieces as there are: every other one is another kernel."""
        tail = _size(self._specs[-2]) + NUM_VOTES
        pieces = [
            vector[:-tail] if dtype == tf.float32 else vector
            for dtype, vector in zip(self._types, vectors, strict=True)
            if dtype.is_floating
        ]
        loss = self._float_vector(vectors)[-tail + LOSS]
        return Contribution((), tuple(pieces), tf.reshape(loss, [1]))

    def _float_vector(self, vectors: list[tf.Tensor]) -> tf.Tensor:
        return vectors[self._types.index(tf.float32)]

    def _sent(self, gradient: tf.Tensor) -> tf.Tensor:
        if self._sent_as is None or gradient.dtype != tf.float32:
            return gradient
        return tf.cast(gradient, self._sent_as)


def _size(spec: tf.TensorSpec) -> int:
    return math.prod(spec.shape.as_list())  # type: ignore[arg-type]
