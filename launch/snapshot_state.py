"""The state that an assignment says to go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.assignment import Assignment
from launch.host_memory import HostMemory

if TYPE_CHECKING:
    from trainer.snapshot.file import Snapshot


def state_of(memory: HostMemory, assignment: Assignment) -> Snapshot | None:
    """What the generation goes on from; None: the newest checkpoint.

    Raises:
        SnapshotMissing: the host's memory does not hold it any more.
    """
    from trainer.snapshot.file import read_snapshot

    place = assignment.restore
    return None if place is None else read_snapshot(memory.snapshot(place.host), place.step)
