"""Contributions that are added up on the GPUs that have computed them, so that none passes through a host's memory.

With `exact` every member adds the same nodes of the one tree over all parts as in the hosts' memory, in a number of
bytes that a ring has too; with `fast` the order is NCCL's, and follows from the number of workers. Nothing of it has
ever run on a GPU: see docs/design/nccl.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.config.elastic import ElasticConfig
from trainer.membership import Collective, DeviceSlice, DeviceSum
from trainer.strategies.contribution_layout import ContributionLayout

_ORDINAL = 0  # a worker's device is the first that it sees


class NcclNotUsable(RuntimeError):
    """The config asks for sums between GPUs, and the workers cannot have them."""


class TensorArithmetic:
    """Memory and addition of TensorFlow's.

    Operations are called one by one, because TensorFlow's rewriting of a graph may change the order of additions.

    Args:
        device: Name of the device.
        dtype: Of all numbers.
    """

    def __init__(self, device: str, dtype: tf.DType) -> None:
        self._device, self._dtype = device, dtype

    def empty(self, num_elements: int) -> tf.Tensor:
        """A tensor of its own memory: TensorFlow may have one tensor for all equal constants."""
        with tf.device(self._device):
            return tf.raw_ops.Empty(shape=[num_elements], dtype=self._dtype, init=True)

    def add(self, left: DeviceSlice, right: DeviceSlice) -> tf.Tensor:
        """The sum of two slices."""
        with tf.device(self._device):
            return tf.raw_ops.AddV2(x=_cut(left), y=_cut(right))


class DeviceSums:
    """Sums between the devices of one group after another, where its members can have them.

    Args:
        mode: `elastic.nccl`.
        device: That this worker computes on; None where that is no GPU.
        library: What stands for NCCL; None: the installed one.

    Attributes:
        is_on: Whether the present group adds up on its devices.
    """

    def __init__(self, mode: str, device: str | None, library: Any = None) -> None:
        self._mode, self._device, self._library = mode, device, library
        self._why: str | None = None
        self._sums: dict[tf.DType, DeviceSum] = {}
        self._pack: Any = None
        self.is_on = False

    @classmethod
    def of(cls, options: ElasticConfig) -> DeviceSums | None:
        """As the config wants it; None where contributions are added up in the hosts' memory."""
        if options.nccl == "off" or not may_stay_on_devices(options):
            return None
        gpus = tf.config.list_logical_devices("GPU")
        if not gpus and options.nccl == "auto":
            return None
        return cls(options.nccl, gpus[0].name if gpus else None)

    def offer(self, collective: Collective) -> dict[str, Any] | None:
        """What the other members have to know before they `connect`, for JSON."""
        return None if self._device is None else collective.device_offer(_ORDINAL, self._library)

    def connect(self, collective: Collective, offers: Sequence[dict[str, Any] | None]) -> None:
        """Goes on in another group.

        Args:
            collective: Of the group.
            offers: Of all members, by rank.

        Raises:
            NcclNotUsable: The config asks for it, and the members cannot have it.
            Membership.broken: The group is no more.
        """
        self._sums = {}
        why = collective.connect_devices(offers, _ORDINAL, self._library)
        self.is_on = why is None
        if why is not None and self._mode != "auto":
            raise NcclNotUsable(f"elastic.nccl={self._mode} cannot be had: {why}; or set elastic.nccl=auto")
        if why is not None and why != self._why:
            print(f"gradients are added up in the hosts' memory, and not between GPUs: {why}", file=sys.stderr)
        self._why = why

    def move_to(
        self, collective: Collective, parts: Sequence[range], num_parts: int, layout: ContributionLayout
    ) -> None:
        """Prepares the sums of the group.

        Args:
            collective: Of the group.
            parts: That each member computes, by rank.
            num_parts: Of the global batch.
            layout: Of a part's contribution.
        """
        assert self._device is not None, "only devices that have been offered are connected"
        self._sums = {
            dtype: collective.device_sum(
                TensorArithmetic(self._device, dtype),
                parts,
                num_parts,
                length,
                # NCCL need not know the other types, of which there is little.
                is_exact=self._mode != "fast" or dtype != tf.float32,
            )
            for dtype, length in layout.lengths.items()
        }
        self._pack = self._pack or tf.function(layout.vectors, autograph=False)

    def pack(self, contributions: Sequence[Sequence[tf.Tensor]], extra: Sequence[float]) -> list[list[tf.Tensor]]:
        """The vectors of some parts, by type in the layout's order, and for each type by part.

        Args:
            contributions: The joined tensors of each part.
            extra: Additional numbers, the same for each part.
        """
        with tf.device(self._device):
            numbers = tf.constant(extra, tf.float32)
            vectors = [self._pack(list(joined), numbers) for joined in contributions]
        # What comes next is not this worker's own time.
        tf.test.experimental.sync_devices()
        return [list(of_type) for of_type in zip(*vectors, strict=True)]

    def run(self, vectors: Sequence[Sequence[tf.Tensor]]) -> dict[tf.DType, tf.Tensor]:
        """The sum over all parts of all members, on the device: valid until the next one. The vectors are used up.

        Raises:
            Membership.broken: The group is no more.
        """
        return {dtype: total.run(parts) for (dtype, total), parts in zip(self._sums.items(), vectors, strict=True)}


def may_stay_on_devices(options: ElasticConfig) -> bool:
    """Whether nothing has to be done with contributions that only the hosts do."""
    return options.compression == "none" and options.overlap == "never" and options.outer_every is None


def _cut(of: DeviceSlice) -> tf.Tensor:
    return of.array if of.end - of.begin == len(of.array) else of.array[of.begin : of.end]
