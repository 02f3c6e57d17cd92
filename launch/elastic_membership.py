"""How a worker of an elastic run becomes a member of one group after another, as its agent orders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from cluster.assignment import Assignment
from cluster.process_group import Endpoint, GroupAborted, PeerFault, ProcessGroup
from cluster.worker_link import WorkerLink
from launch.host_memory import HostMemory, takes_snapshots
from launch.snapshot_state import state_of
from trainer.group import Group
from trainer.membership import Joined

# The supervisor ends a member that does not arrive long before; this only bounds what nobody watches.
_FORM_S = 3600.0
# An accusation may be lost on its way.
_ACCUSE_AGAIN_S = 2.0


class NoMoreGroups(Exception):
    """The worker shall end instead of becoming a member again."""


class ElasticMembership:
    """The newest order counts: it ends the group before it, whatever its members are doing.

    A group that ended because a member sent something wrong is followed by an accusation: the supervisor has one of the
    two replaced, and forms the next group.

    Args:
        link: To the agent, which calls `ordered` for each order.
        endpoint: Of this process.
        memory: Of this host.

    Attributes:
        assignment: The newest one that this worker has taken; None before the first.
    """

    broken: type[Exception] = GroupAborted

    def __init__(self, link: WorkerLink, endpoint: Endpoint, memory: HostMemory) -> None:
        self._link, self._endpoint, self._memory = link, endpoint, memory
        self._newest_ordered = 0
        self._collective: ProcessGroup | None = None
        self.assignment: Assignment | None = None

    def ordered(self, assignment: Assignment) -> None:
        """There is a newer group to be formed; on the link's thread."""
        self._newest_ordered = assignment.generation
        self._endpoint.abort(assignment.generation - 1)

    def accuse(self, suspects: Sequence[int], step: int, is_proven: bool, what: str) -> None:
        """Tells the supervisor whose numbers are wrong, or may be."""
        assert self.assignment is not None, "nobody is accused without a group"
        names = [self.assignment.members[rank].worker for rank in suspects]
        self._link.damage_found(self.assignment.generation, step, names, is_proven, what)

    def join(self) -> Joined:
        """Waits for the next group that this process belongs to, and for its members.

        Raises:
            NoMoreGroups: this worker shall end.
        """
        fault = self._collective.fault if self._collective else None
        while True:
            self._accuse_until_heard(fault)
            fault = None
            # Who has been a member saves with whoever is left, before it stops.
            assignment = self._link.wait_for_assignment(holds_state=self.assignment is not None)
            if assignment is None:
                raise NoMoreGroups
            if assignment.generation < self._newest_ordered:
                continue
            self.assignment = assignment
            try:
                collective = self._endpoint.join(assignment.members, assignment.rank, assignment.generation, _FORM_S)
            except GroupAborted as error:
                fault = error if isinstance(error, PeerFault) else None
                continue
            self._collective = collective
            host = assignment.itself.host
            return Joined(
                Group(assignment.rank, tuple(member.address for member in assignment.members), assignment.generation),
                tuple(member.host for member in assignment.members),
                collective,
                partial(state_of, self._memory, assignment),
                self._memory.snapshot(host) if takes_snapshots(assignment) else None,
            )

    def _accuse_until_heard(self, fault: PeerFault | None) -> None:
        """Says who sent something wrong until there is another order, which is the answer."""
        if fault is None:
            return
        assert self.assignment is not None, "a fault belongs to a group"
        accused = self.assignment.members[fault.rank]
        print(f"generation {self.assignment.generation} is over: {fault}", file=sys.stderr, flush=True)
        while True:
            self._link.accuse(self.assignment.generation, accused.worker, fault.what)
            if self._link.wait_for_order(_ACCUSE_AGAIN_S):
                return
