"""A contribution as a few long vectors, one for each type of number: what travels between workers in one piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

_ALIGNMENT = 64  # bytes; a slice of a tensor that begins at such a place shares its memory


@dataclass(frozen=True)
class _Place:
    begin: int
    size: int
    shape: tuple[int, ...]


class ContributionLayout:
    """Where each tensor of a list lies in the vectors.

    Args:
        specs: Shapes and types of the tensors; all of the shapes are known.

    Attributes:
        lengths: Elements of the vector of each type.

    >>> layout = ContributionLayout([tf.TensorSpec([2, 3]), tf.TensorSpec([], tf.int64), tf.TensorSpec([1])])
    >>> layout.lengths
    {tf.float32: 32, tf.int64: 8}
    """

    def __init__(self, specs: Sequence[tf.TensorSpec]) -> None:
        self.lengths: dict[tf.DType, int] = {}
        self._specs = list(specs)
        self._places: list[_Place] = []
        for spec in specs:
            shape: tuple[int, ...] = tuple(spec.shape.as_list())  # type: ignore[arg-type]
            begin, size = self.lengths.get(spec.dtype, 0), math.prod(shape)
            step = _ALIGNMENT // spec.dtype.size
            self._places.append(_Place(begin, size, shape))
            self.lengths[spec.dtype] = begin + -(-size // step) * step

    def pack(self, tensors: Sequence[tf.Tensor], vectors: dict[tf.DType, np.ndarray]) -> None:
        """Copies tensors to their places."""
        for tensor, spec, place in zip(tensors, self._specs, self._places, strict=True):
            vectors[spec.dtype][place.begin : place.begin + place.size] = tensor.numpy().reshape(-1)

    def unpack(self, vectors: dict[tf.DType, tf.Tensor]) -> list[tf.Tensor]:
        """The tensors, inside of a graph, without a copy where TensorFlow can."""
        return [
            tf.reshape(vectors[spec.dtype][place.begin : place.begin + place.size], place.shape)
            for spec, place in zip(self._specs, self._places, strict=True)
        ]

    def last(self, vectors: dict[tf.DType, np.ndarray]) -> np.ndarray:
        """The last tensor, flat, as it lies in the vectors."""
        place = self._places[-1]
        return vectors[self._specs[-1].dtype][place.begin : place.begin + place.size]
