"""What a training whose group can change asks of whoever forms groups, in plain numbers and arrays.

A process belongs to one group after another. A collective that cannot be finished, because a member is gone or others
join, ends with `Membership.broken` in every member; they then call `join` again, newcomers with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import DTypeLike

from trainer.group import Group
from trainer.snapshot.file import Snapshot


class Reduction(Protocol):
    """Adds up arrays of one length over all parts of a batch, in an order that depends on nothing but their number."""

    @property
    def own(self) -> Sequence[np.ndarray]:
        """One array [N] for each of this member's parts, to be filled before `run`; asked for anew for every step."""
        ...

    def run_range(self) -> None:
        """Adds up the next of the ranges, whose own parts are there, beside arithmetic; `run` does the others."""
        ...

    def run(self) -> np.ndarray:
        """The sum over all parts of all members, [N]; stays as it is until the call after the next one."""
        ...


class DeviceSlice(Protocol):
    """Some elements of a flat array on a device."""

    @property
    def array(self) -> Any: ...  # noqa: D102

    @property
    def begin(self) -> int: ...  # noqa: D102

    @property
    def end(self) -> int: ...  # noqa: D102


class DeviceArithmetic(Protocol):
    """Memory of one device, and addition on it."""

    def empty(self, num_elements: int) -> Any:
        """A flat array with memory of its own, which others may write to."""
        ...

    def add(self, left: DeviceSlice, right: DeviceSlice) -> Any:
        """The sum of two slices of one length."""
        ...


class DeviceSum(Protocol):
    """Adds up arrays over all parts of a batch, on the devices where they are."""

    def run(self, parts: Sequence[Any]) -> Any:
        """The sum over all parts of all members, valid until the next call; `parts` are this member's."""
        ...


class Collective(Protocol):
    """The members of one group, together. All of them call the same methods in the same order."""

    rank: int
    size: int

    def all_gather(self, data: bytes) -> list[bytes]:
        """A few bytes of each member, by rank."""
        ...

    def wait_for_end(self) -> NoReturn:
        """Waits until the group is no more, for members that cannot go on in it. Raises `Membership.broken`."""
        ...

    def transfer(self, senders: Sequence[int], receivers: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
        """Fills the receivers' arrays with those of the senders, which hold the same."""
        ...

    def reduction(
        self,
        parts: Sequence[range],
        num_parts: int,
        num_elements: int,
        dtype: DTypeLike,
        encoding: str | None = None,
        num_exact: int = 0,
        ranges: Sequence[tuple[int, int]] = (),
    ) -> Reduction:
        """A sum over parts, of which rank r computes `parts[r]`; of elements in ranges (begin, end), in this order.

        With an encoding ("bfloat16", "float16", "sparse"), parts and sum are rounded, but for the first `num_exact`
        elements, so that fewer bytes travel.
        """
        ...

    def device_offer(self, ordinal: int, library: Any = None) -> dict[str, Any]:
        """What this member says of its GPU, the one with this number, for JSON."""
        ...

    def connect_devices(self, offers: Sequence[dict[str, Any] | None], ordinal: int, library: Any = None) -> str | None:
        """Connects the GPUs of all members, whose offers are given by rank; or why they are not connected."""
        ...

    def device_sum(
        self,
        arithmetic: DeviceArithmetic,
        parts: Sequence[range],
        num_parts: int,
        num_elements: int,
        is_exact: bool,
    ) -> DeviceSum:
        """A sum over parts, of which rank r computes `parts[r]`, between GPUs that are connected."""
        ...


class Joined(NamedTuple):
    """A member's new place.

    Attributes:
        group: The members, as plain data.
        hosts: The host of each member, by rank.
        collective: Connects them.
        restore: Reads what they go on from when none of them has a state: a snapshot, or None for the newest
            checkpoint.
        snapshots: The file in which this member keeps snapshots; None where another one of its host does.
    """

    group: Group
    hosts: tuple[str, ...]
    collective: Collective
    restore: Callable[[], Snapshot | None]
    snapshots: Path | None


class Membership(Protocol):
    """How a process becomes a member of one group after another.

    Attributes:
        broken: What a collective raises when its group is no more.
        prepare: Set by a training that can go on in its group while another is formed of the same members and
            newcomers. Called once with each group that this process becomes a member of, by all of its members, before
            `join` gives it: on another thread, and with True, where the training goes on meanwhile. Then it answers
            whether it does so on all that do not newly join; if so they have to leave their group after the same step,
            by `leave`, and else it is ended. None: every group ends when the next one is ordered.
    """

    broken: type[Exception]
    prepare: Callable[[Joined, bool], bool] | None

    def join(self) -> Joined:
        """Waits for the next group that this process belongs to, and for its members."""
        ...

    def leave(self) -> None:
        """Ends this process's part in its group, if another one is being formed; does not wait for that."""
        ...

    def accuse(self, suspects: Sequence[int], step: int, is_proven: bool, what: str) -> None:
        """Says that members of the present group compute something else than they must; they will be ended.

        Args:
            suspects: Their ranks.
            step: Steps done.
            is_proven: Whether each of them does; otherwise one of them, and nobody can tell which.
            what: Each of them did, for a person.
        """
        ...
