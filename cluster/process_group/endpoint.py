"""One process's place in the groups that it takes part in, one after the other."""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.assignment import Member
from cluster.process_group.errors import GroupAborted
from cluster.process_group.group import ProcessGroup
from cluster.process_group.interruption import Interruption
from cluster.process_group.joining import Arrival, Joining
from cluster.process_group.links import Links
from cluster.process_group.meeting import patience_s
from cluster.process_group.memory import Memory
from cluster.reserved_port import format_address, split_address

_BACKLOG = 1024  # all members may connect before this one begins to join


class Endpoint:
    """Listens for members of coming generations for the whole life of a process, and joins one after the other.

    The next one may be formed on another thread, beside the group that the process is still in. All methods but `form`,
    `abort` and `close` are for one thread.

    Args:
        worker: the process's name, never used twice in a run.
        host_address: the host's address that its peers reach it at, IPv4 or IPv6.
        key: the run's secret; whoever does not know it cannot take part.
        shared_folder: a folder on tmpfs that the workers of this host, and no other, share; None: no shared memory.

    Attributes:
        worker: as given.
        address: host and port that peers reach this process at, for `Member.address`.
    """

    def __init__(self, worker: str, host_address: str, key: bytes, shared_folder: Path | None) -> None:
        self.worker = worker
        self._key = key
        host = host_address.strip("[]")
        family, *_, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as undo:
            self._listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            self._listener.bind(place)
            self._listener.listen(_BACKLOG)
            self._listener.setblocking(False)
            self.address = format_address(host, self._listener.getsockname()[1])
            self._memory = Memory(shared_folder, worker)
            undo.pop_all()
        self._arrivals: list[Arrival] = []
        self._host_peers: set[str] = set()
        self._forming = threading.Lock()
        self._groups: list[ProcessGroup] = []
        # One for each group, because a waker that two threads wait for would wake only one of them.
        self._interruptions: list[Interruption] = []
        self._last_ended: float = -1
        self._ending = threading.Lock()

    def join(self, members: Sequence[Member], rank: int, generation: int, timeout_s: float) -> ProcessGroup:
        """Forms a group with the other members, each of which calls this with the same members and generation.

        Ends this process's part in the generation before it: its group raises GroupAborted from now on.

        Args:
            members: all, in the order of their ranks.
            rank: this process's.
            generation: higher than every one that this process joined or aborted.
            timeout_s: seconds for everything.

        Raises:
            GroupAborted: the generation was ended, before or during the call.
            TimeoutError: members are missing; names them.
            PeerFault: a member does not agree with this one about the members.
        """
        self.leave(generation, timeout_s)
        return self.form(members, rank, generation, timeout_s)

    def form(self, members: Sequence[Member], rank: int, generation: int, timeout_s: float) -> ProcessGroup:
        """As `join`, beside the group that this process is in and goes on with until it calls `leave`.

        May be called on another thread. The members of that group have to be members of this one, too: the memory that
        others write to is theirs in both.
        """
        deadline = time.monotonic() + timeout_s
        if not self._forming.acquire(timeout=timeout_s):
            raise TimeoutError("another thread still forms a generation: abort it first")
        try:
            interruption = self._begin(generation)
            try:
                self._begin_generation(members, rank)
                joining = Joining(self._listener, self._arrivals, self._key, members, rank, generation, interruption)
                patience = patience_s(self._num_near(members, rank))
                links = Links(joining.run(deadline), generation, interruption, patience)
            except BaseException:
                self._forget(interruption)
                raise
            group = ProcessGroup(members, rank, generation, links, self._memory, lambda: self._forget(interruption))
            self._groups.append(group)
        finally:
            self._forming.release()
        group.agree(deadline)
        return group

    def leave(self, generation: float, timeout_s: float = 60.0) -> None:
        """Ends this process's part in all groups before a generation.

        Raises:
            TimeoutError: another thread does not come back from an operation of one of them.
        """
        for group in [group for group in self._groups if group.generation < generation]:
            group.leave(timeout_s)
            self._groups.remove(group)

    def abort(self, generation: float) -> None:
        """Ends all generations up to this one: whoever is in `join` or an operation of one gets GroupAborted at once.

        From any thread, at any time, as often as one likes. Later generations are not touched.
        """
        with self._ending:
            self._last_ended = max(self._last_ended, generation)
            for interruption in self._interruptions:
                interruption.end(generation)

    def close(self) -> None:
        """Ends every generation, stops listening and removes the worker's shared memory; from any thread."""
        self.abort(math.inf)
        with self._forming:
            if self._listener.fileno() < 0:
                return
            try:
                self.leave(math.inf)
            finally:
                self._listener.close()
                for arrival in self._arrivals:
                    arrival.connection.close()
                self._arrivals.clear()
                self._memory.close()

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @staticmethod
    def _num_near(members: Sequence[Member], rank: int) -> int:
        """How many members share this one's processors, also where they count as other hosts."""
        addresses = [split_address(member.address)[0] for member in members]
        return addresses.count(addresses[rank])

    def _begin(self, generation: int) -> Interruption:
        """What a coming generation is aborted through."""
        with self._ending:
            if generation <= self._last_ended:
                raise GroupAborted(f"generation {generation} was ended before it was joined")
            interruption = Interruption()
            self._interruptions.append(interruption)
        return interruption

    def _forget(self, interruption: Interruption) -> None:
        with self._ending:
            if interruption not in self._interruptions:
                return
            self._interruptions.remove(interruption)
        interruption.close()

    def _begin_generation(self, members: Sequence[Member], rank: int) -> None:
        """Makes sure that nobody outside the new group can still write to memory that the group will use.

        Members of the group before write to each other's result regions. Those who are in the new group have left it.
        One that is not is either dead, or the regions are given up: it may only have been stopped, and go on later.
        """
        itself = members[rank]
        peers = {member.worker for member in members if member.host == itself.host and member.rank != rank}
        left = self._host_peers - peers
        if not all(self._memory.is_surely_dead(worker) for worker in left):
            self._memory.remove_all("result")
        self._host_peers = peers
        self._memory.begin_generation()
