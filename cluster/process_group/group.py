"""The collective operations of one generation."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from cluster.assignment import Member
from cluster.process_group import nccl
from cluster.process_group.device_sum import Arithmetic, DeviceSum, FastDeviceSum
from cluster.process_group.errors import PeerFault
from cluster.process_group.links import Links, checksum_of
from cluster.process_group.memory import Memory
from cluster.process_group.nccl import Communicator, Library
from cluster.process_group.reduction import Reduction, Surroundings
from cluster.process_group.transfer import Transfer

_BLOB = 1  # a kind of frames


class ProcessGroup:
    """One member's view of a generation. Made by `Endpoint.join`.

    All members call the same operations in the same order. Every operation raises GroupAborted when the generation is
    ended meanwhile, and PeerFault when a member sends something wrong; after either the group is over.

    Attributes:
        members: all, by rank.
        rank: this process's.
        size: the number of members.
        generation: the group's number.
        fault: what ended the group, if a member sent something wrong.
    """

    def __init__(
        self,
        members: Sequence[Member],
        rank: int,
        generation: int,
        links: Links,
        memory: Memory,
        on_leave: Callable[[], object],
    ) -> None:
        self.members = tuple(members)
        self.rank = rank
        self.size = len(members)
        self.generation = generation
        self.fault: PeerFault | None = None
        self._links = links
        self._memory = memory
        self._on_leave = on_leave
        self._in_use = threading.Lock()
        self._peers = [other for other in range(self.size) if other != rank]
        self._hosts: list[list[int]] = []
        self._reductions: list[Reduction] = []
        self._communicator: Communicator | None = None

    def agree(self, deadline: float) -> None:
        """Makes sure that all members were told the same, and finds out who shares memory. Called by `join`."""
        told = json.dumps([[member.worker, member.host, member.rank] for member in self.members])
        mine = {"members": hashlib.sha256(told.encode()).hexdigest(), "memory": self._memory.identity}
        answers = self._gather_json(mine, deadline)
        for rank, answer in enumerate(answers):
            if answer["members"] != mine["members"]:
                raise self._fault(rank, f"was told of other members of generation {self.generation}")
        by_host: dict[str, list[int]] = {}
        for member in self.members:
            by_host.setdefault(member.host, []).append(member.rank)
        if max(len(ranks) for ranks in by_host.values()) > 1:
            own_host = by_host[self.members[self.rank].host]
            sees = all(self._memory.sees(self.members[rank].worker, answers[rank]["memory"]) for rank in own_host)
            shares = self._gather_json(sees, deadline)
        else:
            shares = [True] * self.size
        for ranks in by_host.values():
            self._hosts += [ranks] if all(shares[rank] for rank in ranks) else [[rank] for rank in ranks]

    @property
    def num_bytes_sent(self) -> int:
        """What this member has sent to the others so far, memory that they share not counted."""
        return self._links.num_bytes_sent

    def all_gather(self, data: bytes) -> list[bytes]:
        """Every member's bytes, by rank; meant for small ones."""
        return self._gather(data)

    def barrier(self) -> None:
        """Returns when all members have called it."""
        self._gather(b"")

    def broadcast(self, array: np.ndarray, root: int) -> None:
        """Fills the C-contiguous array of every member with that of the member of rank `root`."""
        self.transfer([root], [rank for rank in range(self.size) if rank != root], [array])

    def transfer(self, senders: Sequence[int], receivers: Sequence[int], arrays: Sequence[np.ndarray]) -> None:
        """Fills the receivers' arrays with the senders'.

        Args:
            senders: ranks whose arrays all hold the same.
            receivers: ranks that get it; one that is a sender too only sends. Other ranks return at once.
            arrays: C-contiguous, the receivers' writable; of the same number of bytes at all.

        Raises:
            ValueError: nobody sends, or an array is not contiguous.
        """
        transfer = Transfer(self.members, self.rank, self._hosts, self._memory, senders, receivers, arrays)
        with self._operation() as links:
            transfer.run(links)

    def reduction(
        self,
        parts: Sequence[range],
        num_parts: int,
        num_elements: int,
        dtype: Any,
        encoding: str | None = None,
        num_exact: int = 0,
        ranges: Sequence[tuple[int, int]] = (),
    ) -> Reduction:
        """Prepares sums of `num_parts` arrays in the one fixed order. A collective operation itself.

        Args:
            parts: the contiguous parts that each rank holds, by rank: together `range(num_parts)`, each once.
            num_parts: of each sum.
            num_elements: of each part and of the sum.
            dtype: of both.
            encoding: what leaves the host, and rounds the parts and the sum: see `encoding.py`; None: nothing does.
            num_exact: of the first elements, which are not touched by it.
            ranges: of elements (begin, end) that are added one after the other, in this order, together all of them;
                empty: all at once.

        Raises:
            ValueError: the parts or the ranges do not make up the whole, or there is no such encoding of this type.
            PeerFault: a member asks for another reduction.
            OSError: the host has not enough memory for shared files, or one of a host peer's has gone.
        """
        surroundings = Surroundings(self.members, self.rank, self._hosts, self._memory, self._operation)
        reduction = Reduction(surroundings, parts, num_parts, num_elements, dtype, encoding, num_exact, ranges)
        # Kept from now on, so that its memory is given back even if the group ends while it is prepared.
        self._reductions.append(reduction)
        told = self._gather_json(reduction.offer())
        for rank, offer in enumerate(told):
            if offer["sum"] != told[self.rank]["sum"]:
                raise self._fault(rank, f"asks for the sum {offer['sum']} and this one for {told[self.rank]['sum']}")
        in_use = {(self.members[rank].worker, name) for rank, offer in enumerate(told) for name in offer["known"]}
        self._memory.forget_peers(in_use)
        try:
            reduction.connect(told)
        except FileNotFoundError as error:
            # A peer that has gone on to a later generation may have removed it: then this one will be ended too.
            with self._operation() as links:
                links.wait_for_end(5.0)
            raise FileNotFoundError(f"a shared file of a host peer has gone: {error}") from error
        self.barrier()
        return reduction

    def device_offer(self, ordinal: int, library: Library | None = None) -> dict[str, Any]:
        """What this member says of its GPU, for JSON; the others have to be told before `connect_devices`.

        Args:
            ordinal: of the GPU, as CUDA counts those that this process sees.
            library: NCCL; None: the installed one.
        """
        return nccl.offer(ordinal, library, makes_id=self.rank == 0 and self.size > 1)

    def connect_devices(
        self, offers: Sequence[dict[str, Any] | None], ordinal: int, library: Library | None = None
    ) -> str | None:
        """Connects the GPUs of all members, for `device_sum`. A collective operation itself.

        Args:
            offers: of `device_offer` of all members, by rank; None of one that has no GPU.
            ordinal, library: as there.

        Returns:
            None, or why the GPUs of these members are not connected; the same on all of them.

        Raises:
            NcclFailed: this member's GPU cannot take part, although it looked so.
        """
        told = [{"why": "this worker has no GPU"} if each is None else each for each in offers]
        why = nccl.obstacle(told)
        if why is None and self.size > 1:
            self._communicator = Communicator(told, self.rank, ordinal, self._operation, library)
        return why

    def device_sum(
        self, arithmetic: Arithmetic, parts: Sequence[range], num_parts: int, num_elements: int, is_exact: bool
    ) -> DeviceSum | FastDeviceSum:
        """Prepares sums of arrays that lie on the members' GPUs, which `connect_devices` has connected.

        Args:
            arithmetic: of this member's GPU.
            parts: the contiguous parts that each rank holds, by rank: together `range(num_parts)`, each once.
            num_parts: of each sum.
            num_elements: of each part and of the sum.
            is_exact: whether they are added in the one fixed order, or in NCCL's.

        Raises:
            ValueError: the parts do not make up the whole, or the GPUs are not connected.
        """
        if not is_exact:
            return FastDeviceSum(self._communicator, arithmetic, len(parts[self.rank]))
        by_host: dict[str, list[int]] = {}
        for member in self.members:
            by_host.setdefault(member.host, []).append(member.rank)
        hosts = list(by_host.values())
        return DeviceSum(self._communicator, arithmetic, hosts, self.rank, parts, num_parts, num_elements)

    def wait_for_end(self) -> NoReturn:
        """Waits until the generation is ended from outside; for a member that cannot go on in it.

        Raises:
            GroupAborted: it was.
        """
        with self._operation() as links:
            while True:
                links.wait_for_end(3600.0)

    def leave(self, timeout_s: float = 60.0) -> None:
        """Closes the connections and gives the reductions' memory back. Called by the endpoint.

        Raises:
            TimeoutError: another thread does not come back from an operation.
        """
        if not self._in_use.acquire(timeout=timeout_s):
            raise TimeoutError("another thread is still in an operation of the group before: abort it first")
        try:
            self._links.close()
            for reduction in self._reductions:
                reduction.release()
            self._reductions.clear()
            self._on_leave()
            if self._communicator is not None:
                self._communicator.close()
        finally:
            self._in_use.release()

    @contextlib.contextmanager
    def _operation(self, looks: bool = True) -> Iterator[Links]:
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("two threads use one endpoint at a time: one thread must make all its calls")
        try:
            self._links.begin(looks)
            yield self._links
        except BaseException as error:
            self._links.close()
            if isinstance(error, PeerFault):
                self.fault = error
            raise
        finally:
            self._in_use.release()

    def _gather(self, data: bytes, deadline: float | None = None) -> list[bytes]:
        gathered = [data] * self.size
        with self._operation() as links:
            for rank in self._peers:
                links.receive(rank, _BLOB, target=None, then=lambda blob, rank=rank: _put(gathered, rank, blob))
            checksum = checksum_of(data)
            for rank in self._peers:
                links.send(rank, _BLOB, payload=data, checksum=checksum)
            links.finish(deadline)
        return gathered

    def _gather_json(self, content: Any, deadline: float | None = None) -> list[Any]:
        told = []
        for rank, data in enumerate(self._gather(json.dumps(content).encode(), deadline)):
            try:
                told.append(json.loads(data))
            except ValueError:
                raise self._fault(rank, f"sent {data[:40]!r}, which is not JSON") from None
            if type(told[-1]) is not type(content):
                raise self._fault(rank, f"sent {data[:40]!r} where {type(content).__name__} is expected")
        return told

    def _fault(self, rank: int, what: str) -> PeerFault:
        self._links.close()
        self.fault = PeerFault(self.members[rank], what)
        return self.fault


def _put(gathered: list[bytes], rank: int, blob: np.ndarray) -> None:
    gathered[rank] = blob.tobytes()
