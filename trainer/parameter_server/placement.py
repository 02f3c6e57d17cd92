"""Where each part of the state lies: variables on the parameter servers, large ones divided among them by rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf


class PlacedVariable:
    """A variable in pieces along its first dimension, each on a parameter server; or whole, as one piece.

    It offers what a `TrainState` needs of a `tf.Variable`.

    Args:
        variable: Its value, shape and type are taken over.
        devices: Of the pieces, in the order of the rows.

    Attributes:
        pieces: The variables on the servers.
        bounds: [pieces + 1], the first row of each piece, and the number of rows; empty where there is one piece.
    """

    def __init__(self, variable: tf.Variable, devices: Sequence[str]) -> None:
        self.shape, self.dtype, self.name = variable.shape, variable.dtype, variable.name
        self.bounds = row_bounds(int(self.shape[0] or 0), len(devices)) if len(devices) > 1 else []
        self.pieces: list[tf.Variable] = []
        for device, value in zip(devices, self._cut(variable.read_value()), strict=True):
            with tf.device(device):
                # As a function, so that the value is not kept a second time for the graph of an initialisation.
                self.pieces.append(tf.Variable(value, trainable=False, name="piece"))

    def read_value(self) -> tf.Tensor:
        """The whole value."""
        return self.joined([piece.read_value() for piece in self.pieces])

    def joined(self, values: list[tf.Tensor]) -> tf.Tensor:
        """The whole value of those of the pieces."""
        return values[0] if len(values) == 1 else tf.concat(values, 0)

    def numpy(self) -> np.ndarray:
        """The whole value, here."""
        values = [piece.numpy() for piece in self.pieces]
        return values[0] if len(values) == 1 else np.concatenate(values)

    def assign(self, value: np.ndarray | tf.Tensor) -> None:
        """Sets the whole value."""
        for piece, part in zip(self.pieces, self._cut(value), strict=True):
            piece.assign(part)

    def split(self, value: tf.Tensor) -> list[tf.Tensor]:
        """The rows of a value of this shape that belong to each piece."""
        return self._cut(value)

    def _cut(self, value):
        if len(self.bounds) == 0:
            return [value]
        return [value[begin:end] for begin, end in itertools.pairwise(self.bounds)]


def row_bounds(rows: int, pieces: int) -> list[int]:
    """Where each piece begins, and the end: as equal as can be.

    >>> row_bounds(7, 3)
    [0, 3, 5, 7]
    """
    each, more = divmod(rows, pieces)
    return [0, *itertools.accumulate(each + (piece < more) for piece in range(pieces))]


class Placement:
    """Chooses the parameter servers of each variable.

    Large variables are divided among all servers, the rest go whole to the server that has least so far. What the
    optimizer and the average keep of a weight lies beside it, so that an update needs no other server.

    Args:
        num_servers: Of the group.
        min_shard_bytes: Variables of at least this many bytes are divided.
        divides: Whether variables may be divided at all: an update rule that looks at a whole variable forbids it.
    """

    def __init__(self, num_servers: int, min_shard_bytes: int, divides: bool) -> None:
        self._devices = [f"/job:ps/replica:0/task:{server}/device:CPU:0" for server in range(num_servers)]
        self._min_shard_bytes, self._divides = min_shard_bytes, divides
        self._load = [0] * num_servers

    @property
    def first(self) -> str:
        """The server of the few numbers that belong to no weight."""
        return self._devices[0]

    def is_large(self, variable: tf.Variable) -> bool:
        """Whether the variable is one that does not travel as a whole."""
        return variable.shape.rank >= 1 and num_bytes(variable) >= self._min_shard_bytes

    def devices_of(self, variable: tf.Variable) -> list[str]:
        """The servers of a weight's pieces, in the order of its rows."""
        if self._divides and self.is_large(variable) and int(variable.shape[0] or 0) >= len(self._devices) > 1:
            return list(self._devices)
        server = min(range(len(self._devices)), key=self._load.__getitem__)
        self._load[server] += num_bytes(variable)
        return [self._devices[server]]


def num_bytes(variable: tf.Variable) -> int:
    """Of a variable's value."""
    return int(variable.shape.num_elements() or 0) * variable.dtype.size


def owner_of(slot: str, weights: Mapping[str, tf.Variable]) -> str | None:
    """The path of the weight that an optimizer's variable belongs to, None for one that belongs to none.

    >>> owner_of("adam/hidden_0_kernel_momentum", {"hidden_0/kernel": None, "hidden/kernel": None})
    'hidden_0/kernel'
    """
    name = slot.partition("/")[2]
    fitting = [path for path in weights if name.startswith(f"{path.replace('/', '_')}_")]
    return max(fitting, key=len, default=None)
