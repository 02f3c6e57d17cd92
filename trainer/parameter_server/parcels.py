"""Which tensors travel between two processes as one: each that is sent by itself costs a request and its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

# Above it a request costs little beside the bytes, and copying them would cost more.
_LARGEST_BYTES = 1 << 16


@dataclass(frozen=True)
class Item:
    """A tensor that travels.

    Attributes:
        server: The device of the parameter server that it comes from or goes to.
        dtype: Of its elements.
        shape: None where a dimension is known only when it is there.
    """

    server: str
    dtype: tf.DType
    shape: tuple[int, ...] | None

    @property
    def size(self) -> int:
        """Elements, where the shape is known."""
        return math.prod(self.shape or ())


class Parcels:
    """Puts small tensors of one server and type behind each other in a vector; all others travel by themselves.

    Args:
        items: What travels, in the order of `wrap` and `unwrap`.

    Attributes:
        groups: The server of each parcel, and which items are in it.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = list(items)
        together: dict[tuple, list[int]] = {}
        for number, item in enumerate(self._items):
            is_small = item.shape is not None and item.size * item.dtype.size <= _LARGEST_BYTES
            key = (item.server, item.dtype) if is_small else (item.server, item.dtype, number)
            together.setdefault(key, []).append(number)
        self.groups = [(key[0], numbers) for key, numbers in together.items()]

    def wrap(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The parcels, where the values are."""
        return [self.wrapped(number, [values[i] for i in numbers]) for number, (_, numbers) in enumerate(self.groups)]

    def wrapped(self, number: int, values: Sequence[tf.Tensor]) -> tf.Tensor:
        """One parcel of its values."""
        assert len(values) == len(self.groups[number][1])
        return values[0] if len(values) == 1 else tf.concat([tf.reshape(value, [-1]) for value in values], 0)

    def unwrapped(self, number: int, parcel: tf.Tensor) -> list[tf.Tensor]:
        """The values of one parcel."""
        items = [self._items[i] for i in self.groups[number][1]]
        if len(items) == 1:
            return [parcel]
        parts = tf.split(parcel, [item.size for item in items])
        return [tf.reshape(part, item.shape or ()) for part, item in zip(parts, items, strict=True)]

    def in_order(self, unwrapped: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
        """The values of all parcels, in the order of the items."""
        found: dict[int, tf.Tensor] = {}
        for (_, numbers), values in zip(self.groups, unwrapped, strict=True):
            found.update(zip(numbers, values, strict=True))
        return [found[number] for number in range(len(self._items))]


def read_together(pieces: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The values of variables on parameter servers, for a function that runs elsewhere."""
    parcels = Parcels([Item(piece.device, piece.dtype, tuple(piece.shape)) for piece in pieces])  # type: ignore[arg-type]
    unwrapped = []
    for number, (server, numbers) in enumerate(parcels.groups):
        with tf.device(server):
            parcel = parcels.wrapped(number, [pieces[i].read_value() for i in numbers])
        unwrapped.append(parcels.unwrapped(number, parcel))
    return parcels.in_order(unwrapped)
