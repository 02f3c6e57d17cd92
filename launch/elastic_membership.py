"""How a worker of an elastic run becomes a member of one group after another, as its agent orders."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
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


class _Beside:
    """The next group, formed on a thread of its own while its first members go on in the last one."""

    def __init__(self, assignment: Assignment, work: Callable[[Assignment], Joined]) -> None:
        self.assignment = assignment
        self.joined: Joined | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), name="next-group", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Assignment], Joined]) -> None:
        try:
            self.joined = work(self.assignment)
        except Exception as error:  # of the training's thread, which asks for it
            self.error = error

    def wait(self) -> None:
        """Returns when the group is formed, or is not to be."""
        self._thread.join()

    def result(self) -> Joined:
        """The group. Raises what went wrong."""
        self.wait()
        if self.error is not None:
            raise self.error
        assert self.joined is not None, "one of the two"
        return self.joined


class ElasticMembership:
    """The newest order counts: it ends the group before it, whatever its members are doing.

    Where somebody only joins, and the training can go on meanwhile, the next group is formed beside the last one, which
    ends when all of its members leave it after the same step, or one of them does for another reason.

    A group that ended because a member sent something wrong is followed by an accusation: the supervisor has one of the
    two replaced, and forms the next group.

    Args:
        link: To the agent, which calls `ordered` for each order.
        endpoint: Of this process.
        memory: Of this host.

    Attributes:
        assignment: The newest one that this worker has taken; None before the first.
        prepare: See `Membership`.
    """

    broken: type[Exception] = GroupAborted

    def __init__(self, link: WorkerLink, endpoint: Endpoint, memory: HostMemory) -> None:
        self._link, self._endpoint, self._memory = link, endpoint, memory
        self._newest_ordered = 0
        self._collective: ProcessGroup | None = None
        self.assignment: Assignment | None = None
        self.prepare: Callable[[Joined, bool], bool] | None = None
        self._staying = threading.Lock()
        self._stays = False  # in its group, as long as nobody but newcomers makes another one necessary
        self._beside: _Beside | None = None

    def ordered(self, assignment: Assignment) -> None:
        """There is a newer group to be formed; on the link's thread."""
        self._newest_ordered = assignment.generation
        with self._staying:
            if self._stays and self._is_joined_only(assignment):
                self._beside = _Beside(assignment, self._form_beside)
                return
        self._endpoint.abort(assignment.generation - 1)

    def leave(self) -> None:
        """Goes on with nothing but the next group, if there is one to come."""
        with self._staying:
            self._stays = False
            if self._beside is not None:
                self._endpoint.abort(self._beside.assignment.generation - 1)

    def _is_joined_only(self, assignment: Assignment) -> bool:
        """Whether all members of this worker's group have the same place in the next one."""
        own = self.assignment
        return (
            self.prepare is not None
            and self._beside is None
            and own is not None
            and assignment.generation == own.generation + 1
            and assignment.members[: len(own.members)] == own.members
        )

    def _form_beside(self, assignment: Assignment) -> Joined:
        try:
            collective = self._endpoint.form(assignment.members, assignment.rank, assignment.generation, _FORM_S)
            joined = self._joined(assignment, collective)
            assert self.prepare is not None, "nothing is formed beside what cannot be left"
            stay = self.prepare(joined, True)
        except BaseException:
            self._endpoint.abort(assignment.generation - 1)  # the training's thread says what is to be done
            raise
        if not stay:
            self._endpoint.abort(assignment.generation - 1)
        return joined

    def accuse(self, suspects: Sequence[int], step: int, is_proven: bool, what: str) -> None:
        """Tells the supervisor whose numbers are wrong, or may be."""
        assert self.assignment is not None, "nobody is accused without a group"
        names = [self.assignment.members[rank].worker for rank in suspects]
        self._link.damage_found(self._newest_ordered, step, names, is_proven, what)

    def join(self) -> Joined:
        """Waits for the next group that this process belongs to, and for its members.

        Raises:
            NoMoreGroups: this worker shall end.
        """
        with self._staying:
            beside, self._beside, self._stays = self._beside, None, False
        fault = self._collective.fault if self._collective else None
        while True:
            self._accuse_until_heard(fault, beside)
            fault = None
            # Who has been a member saves with whoever is left, before it stops.
            assignment = self._link.wait_for_assignment(holds_state=self.assignment is not None)
            if assignment is None:
                raise NoMoreGroups
            if assignment.generation < self._newest_ordered:
                continue
            self.assignment = assignment
            try:
                joined = self._enter(assignment, beside)
            except GroupAborted as error:
                fault = error if isinstance(error, PeerFault) else None
                continue
            assert isinstance(joined.collective, ProcessGroup), "of this endpoint"
            self._collective = joined.collective
            with self._staying:
                self._stays = assignment.generation == self._newest_ordered
            return joined

    def _enter(self, assignment: Assignment, beside: _Beside | None) -> Joined:
        if beside is not None and beside.assignment.generation == assignment.generation:
            joined = beside.result()
            self._endpoint.leave(assignment.generation)
            return joined
        if beside is not None:
            beside.wait()
        collective = self._endpoint.join(assignment.members, assignment.rank, assignment.generation, _FORM_S)
        joined = self._joined(assignment, collective)
        if self.prepare is not None:
            self.prepare(joined, False)
        return joined

    def _joined(self, assignment: Assignment, collective: ProcessGroup) -> Joined:
        return Joined(
            Group(assignment.rank, tuple(member.address for member in assignment.members), assignment.generation),
            tuple(member.host for member in assignment.members),
            collective,
            partial(state_of, self._memory, assignment),
            self._memory.snapshot(assignment.itself.host) if takes_snapshots(assignment) else None,
        )

    def _accuse_until_heard(self, fault: PeerFault | None, beside: _Beside | None) -> None:
        """Says who sent something wrong until there is another order, which is the answer."""
        if fault is None:
            return
        assert self.assignment is not None, "a fault belongs to a group"
        generation, accused = self.assignment.generation, self.assignment.members[fault.rank]
        print(f"generation {generation} is over: {fault}", file=sys.stderr, flush=True)
        if beside is not None and beside.assignment.generation == generation + 1:
            # Those who are still in the group that is over for this worker wait for it: only another order ends both.
            generation += 1
            self._link.wait_for_assignment(holds_state=True)
        while True:
            self._link.accuse(generation, accused.worker, fault.what)
            if self._link.wait_for_order(_ACCUSE_AGAIN_S):
                return
