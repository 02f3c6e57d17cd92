"""Whether all workers of a group hold the same weights, where nothing but equal updates keeps them equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import google_crc32c
import numpy as np
import tensorflow as tf

from trainer.state import TrainState


class Members(Protocol):
    """A group that sends tensors."""

    def gather(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """Every member's tensor, [W, ...] by rank."""
        ...

    def from_chief(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """The chief's tensor."""
        ...

    def leave(self) -> None:
        """Ends the membership of all members."""
        ...


class WeightsDiffer(RuntimeError):
    """Workers hold other weights than the chief."""


class WeightCheck:
    """Makes the states of all workers equal at the start, and sees that they stay so.

    Args:
        members: Of the group, all of which call each method at the same step.
    """

    def __init__(self, members: Members) -> None:
        self._members = members

    def begin(self, state: TrainState) -> None:
        """Gives every worker the chief's state, unless all have the same already."""
        if not self._differing(state):
            return
        for name, variable in sorted(state.variables.items()):
            variable.assign(self._members.from_chief(variable.read_value(), f"state.{name}"))
        self.check(state)

    def check(self, state: TrainState) -> None:
        """Compares the states.

        Raises:
            WeightsDiffer: They are not equal, to the bit.
        """
        if ranks := self._differing(state):
            raise WeightsDiffer(
                f"after step {state.step} workers {', '.join(map(str, ranks))} hold other weights than the chief, "
                "though all have applied the same sums: repeat the command, which goes on from the last checkpoint, "
                "whose weights were equal; if it comes again, a machine computes wrongly"
            )

    def end(self) -> None:
        """Leaves the group, when no worker needs the others any more."""
        self._members.leave()

    def _differing(self, state: TrainState) -> list[int]:
        """The ranks whose state is not the chief's."""
        own = tf.constant(digest(state.tensors()), tf.int64)
        every = self._members.gather(own, "digest").numpy()
        return np.flatnonzero(every != every[0]).tolist()


def digest(tensors: Mapping[str, tf.Tensor]) -> int:
    """A checksum of all values, by name (CRC-32C, which a processor computes faster than it reads memory)."""
    checksum = 0
    for name in sorted(tensors):
        checksum = google_crc32c.extend(checksum, name.encode())
        values = np.ascontiguousarray(tensors[name].numpy())
        checksum = google_crc32c.extend(checksum, values.reshape(-1).view(np.uint8).tobytes())
    return checksum
