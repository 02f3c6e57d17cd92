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
    """Listens for members of coming generations for the whole life of a process, and joins one generation at a time.

    All methods but `abort` and `close` are for one thread.

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
        self._interruption = Interruption()
        self._arrivals: list[Arrival] = []
        self._group: ProcessGroup | None = None
        self._host_peers: set[str] = set()
        self._in_use = threading.Lock()

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
        deadline = time.monotonic() + timeout_s
        if not self._in_use.acquire(timeout=timeout_s):
            raise TimeoutError("another thread is still in an operation of the group before: abort it first")
        try:
            if self._interruption.has_ended(generation):
                raise GroupAborted(f"generation {generation} was ended before it was joined")
            self._end_group()
            self._begin_generation(members, rank)
            self._interruption.clear()
            joining = Joining(self._listener, self._arrivals, self._key, members, rank, generation, self._interruption)
            links = Links(
                joining.run(deadline), generation, self._interruption, patience_s(self._num_near(members, rank))
            )
        finally:
            self._in_use.release()
        group = ProcessGroup(members, rank, generation, links, self._memory, self._in_use)
        self._group = group
        group.agree(deadline)
        return group

    def abort(self, generation: int) -> None:
        """Ends all generations up to this one: whoever is in `join` or an operation of one gets GroupAborted at once.

        From any thread, at any time, as often as one likes. Later generations are not touched.
        """
        self._interruption.end(generation)

    def close(self) -> None:
        """Ends every generation, stops listening and removes the worker's shared memory; from any thread."""
        self._interruption.end(math.inf)
        with self._in_use:
            if self._listener.fileno() < 0:
                return
            try:
                self._end_group()
            finally:
                self._listener.close()
                for arrival in self._arrivals:
                    arrival.connection.close()
                self._arrivals.clear()
                self._memory.close()
                self._interruption.close()

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @staticmethod
    def _num_near(members: Sequence[Member], rank: int) -> int:
        """How many members share this one's processors, also where they count as other hosts."""
        addresses = [split_address(member.address)[0] for member in members]
        return addresses.count(addresses[rank])

    def _end_group(self) -> None:
        group, self._group = self._group, None
        if group:
            group.leave()

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
