"""A contribution as a few long vectors, one for each type of number: what travels between workers in one piece."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

_ALIGNMENT = 64  # bytes; a large tensor that begins at such a place is read where it lies
_SMALL = 1 << 14  # elements; a copy of so many costs less than handing over a tensor of its own


@dataclass(frozen=True)
class _Place:
    begin: int
    size: int
    shape: tuple[int, ...]


class Bucket(NamedTuple):
    """Large float32 tensors that lie beside each other.

    Attributes:
        tensors: Their places in the list, ascending.
        begin, end: Elements of the vector of float32 that are theirs.
    """

    tensors: tuple[int, ...]
    begin: int
    end: int


class ContributionLayout:
    """Where each tensor of a list lies in the vectors: small ones next to each other at the beginning.

    Args:
        specs: Shapes and types of the tensors; all of the shapes are known.
        num_extra: More float32 numbers, which no tensor holds.
        last: Tensors that end the vectors, if they are large.

    Attributes:
        num_tensors: How many there are.
        lengths: Elements of the vector of each type.
        extra: Where the additional numbers lie in the vector of float32.
        large: Where each of the large float32 tensors lies that end the vector.
        num_exact: Elements of the vector of float32 before them.

    >>> layout = ContributionLayout([tf.TensorSpec([2, 3]), tf.TensorSpec([], tf.int64), tf.TensorSpec([1])], 2)
    >>> layout.lengths, layout.extra
    ({tf.float32: 16, tf.int64: 8}, slice(7, 9, None))
    """

    def __init__(self, specs: Sequence[tf.TensorSpec], num_extra: int = 0, last: Collection[int] = ()) -> None:
        self._specs, self.num_tensors = list(specs), len(specs)
        shapes: list[tuple[int, ...]] = [tuple(spec.shape.as_list()) for spec in specs]  # type: ignore[arg-type]
        sizes = [math.prod(shape) for shape in shapes]
        # By type, the places in the list of those that are joined, and of the others.
        self._joined: dict[tf.DType, list[int]] = {}
        self._single = [i for i, size in enumerate(sizes) if size >= _SMALL]
        places: dict[int, _Place] = {}
        ends = {tf.float32: 0} if num_extra else {}
        for i, spec in enumerate(specs):
            begin = ends.setdefault(spec.dtype, 0)
            if sizes[i] < _SMALL:
                self._joined.setdefault(spec.dtype, []).append(i)
                places[i] = _Place(begin, sizes[i], shapes[i])
                ends[spec.dtype] += sizes[i]
        self._joined_sizes = {dtype: ends[dtype] for dtype in self._joined}
        self.extra = slice(ends.get(tf.float32, 0), ends.get(tf.float32, 0) + num_extra)
        if num_extra:
            ends[tf.float32] += num_extra
        ends = {dtype: _aligned(end, dtype) for dtype, end in ends.items()}
        for i in sorted(self._single, key=lambda i: i in last):
            dtype = specs[i].dtype
            places[i] = _Place(ends[dtype], sizes[i], shapes[i])
            ends[dtype] = _aligned(ends[dtype] + sizes[i], dtype)
        self._places = [places[i] for i in range(len(specs))]
        self.lengths: dict[tf.DType, int] = ends
        large = [places[i] for i in self._single if i in last and specs[i].dtype == tf.float32]
        self.large = [slice(place.begin, place.begin + place.size) for place in large]
        self.num_exact = min((place.begin for place in large), default=ends.get(tf.float32, 0))

    def join(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The tensors, inside of a graph, as few flat ones: what `pack` takes."""
        joined = [tf.concat([tf.reshape(tensors[i], [-1]) for i in places], 0) for places in self._joined.values()]
        return joined + [tf.reshape(tensors[i], [-1]) for i in self._single]

    def empty(self) -> list[tf.Tensor]:
        """What stands for joined tensors that nobody has computed."""
        dtypes = [*self._joined, *(self._specs[i].dtype for i in self._single)]
        return [tf.zeros([0], dtype) for dtype in dtypes]

    def buckets(self, num_tensors: int, num_bytes: int) -> list[Bucket]:
        """Those of the first tensors that fill buckets of at least so many bytes, the last ones first.

        What fills none, and what no tensor lies beside, is left out.
        """
        buckets: list[Bucket] = []
        taken: list[int] = []
        large = [i for i in self._single if i < num_tensors and self._specs[i].dtype == tf.float32]
        for i in reversed(large):
            if taken and self._end(i) != self._places[taken[-1]].begin:
                taken = []  # it lies elsewhere: among those that end the vector, or before them
            taken.append(i)
            begin, end = self._places[i].begin, self._end(taken[0])
            if (end - begin) * tf.float32.size >= num_bytes:
                buckets.append(Bucket(tuple(reversed(taken)), begin, end))
                taken = []
        return buckets

    def singles(self, joined: Sequence[tf.Tensor], tensors: Sequence[int]) -> list[tf.Tensor]:
        """Some of the large tensors, out of what `join` gives."""
        large = dict(zip(self._single, joined[len(self._joined) :], strict=True))
        return [large[i] for i in tensors]

    def put(self, tensors: Sequence[int], values: Sequence[np.ndarray], vector: np.ndarray) -> None:
        """Copies some of the large tensors, flat, to their places in the vector of their type."""
        for i, value in zip(tensors, values, strict=True):
            place = self._places[i]
            vector[place.begin : place.begin + place.size] = value

    def _end(self, tensor: int) -> int:
        place = self._places[tensor]
        return _aligned(place.begin + place.size, self._specs[tensor].dtype)

    def pack(
        self,
        joined: Sequence[tf.Tensor],
        extra: Sequence[float],
        vectors: Mapping[tf.DType, np.ndarray],
        there: Collection[int] = (),
    ) -> None:
        """Copies joined tensors and the additional numbers to their places, but for large tensors that are there.

        `Tensor.numpy` would make a copy of its own before.
        """
        for tensor, (dtype, size) in zip(joined, self._joined_sizes.items(), strict=False):
            vectors[dtype][:size] = np.asarray(tensor)
        for tensor, i in zip(joined[len(self._joined) :], self._single, strict=True):
            if i not in there:
                self.put([i], [np.asarray(tensor)], vectors[self._specs[i].dtype])
        if len(extra):
            vectors[tf.float32][self.extra] = extra

    def vectors(self, joined: Sequence[tf.Tensor], extra: tf.Tensor) -> list[tf.Tensor]:
        """What `pack` fills, inside of a graph: by type in the order of `lengths`, with zeros between the tensors."""
        pieces: dict[tf.DType, list[tuple[int, int, tf.Tensor]]] = {dtype: [] for dtype in self.lengths}
        for tensor, (dtype, size) in zip(joined, self._joined_sizes.items(), strict=False):
            pieces[dtype].append((0, size, tensor))
        for tensor, i in zip(joined[len(self._joined) :], self._single, strict=True):
            place = self._places[i]
            pieces[self._specs[i].dtype].append((place.begin, place.size, tensor))
        if self.extra.stop > self.extra.start:
            pieces[tf.float32].append((self.extra.start, self.extra.stop - self.extra.start, extra))
        vectors = []
        for dtype, length in self.lengths.items():
            filled, end = [], 0
            for begin, size, tensor in sorted(pieces[dtype], key=lambda piece: piece[0]):
                filled += [tf.zeros([begin - end], dtype), tensor] if begin > end else [tensor]
                end = begin + size
            vectors.append(tf.concat([*filled, tf.zeros([length - end], dtype)], 0))
        return vectors

    def used(self, vectors: Mapping[tf.DType, np.ndarray]) -> list[np.ndarray]:
        """Where tensors lie in the vectors; between them, and where the additional numbers are, anything may be."""
        pieces = [vectors[dtype][:size] for dtype, size in self._joined_sizes.items()]
        for i in self._single:
            place = self._places[i]
            pieces.append(vectors[self._specs[i].dtype][place.begin : place.begin + place.size])
        return pieces

    def unpack(self, vectors: Mapping[tf.DType, tf.Tensor]) -> list[tf.Tensor]:
        """The tensors, inside of a graph, without a copy of large ones where TensorFlow can."""
        return [
            tf.reshape(vectors[spec.dtype][place.begin : place.begin + place.size], place.shape)
            for spec, place in zip(self._specs, self._places, strict=True)
        ]

    def regions(self, vectors: Mapping[tf.DType, tf.Tensor], num_tensors: int) -> list[tf.Tensor]:
        """The first so many tensors, inside of a graph: the joined ones of each type in one piece, the others alone."""
        regions = []
        for dtype, places in self._joined.items():
            end = max((self._places[i].begin + self._places[i].size for i in places if i < num_tensors), default=0)
            if end:
                regions.append(vectors[dtype][:end])
        for i in self._single:
            place = self._places[i]
            if i < num_tensors:
                regions.append(vectors[self._specs[i].dtype][place.begin : place.begin + place.size])
        return regions

    def element(self, vectors: Mapping[tf.DType, tf.Tensor], tensor: int, place: int) -> tf.Tensor:
        """One number of one tensor, inside of a graph."""
        return vectors[self._specs[tensor].dtype][self._places[tensor].begin + place]


def _aligned(end: int, dtype: tf.DType) -> int:
    step = _ALIGNMENT // dtype.size
    return -(-end // step) * step
