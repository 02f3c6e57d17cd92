"""What the communicator uses of nccl4py and cuda.core, between threads of one process and in its memory.

It is strict where NCCL is undefined: a call while the one before is in progress, a call from another thread, lengths
that do not fit, a stream that is used too early. `test_nccl_signatures.py` holds it against the real packages.
"""

import contextlib
import ctypes
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from cluster.process_group.nccl import Library

SUCCESS, SYSTEM_ERROR, INVALID_USAGE, REMOTE_ERROR, IN_PROGRESS = 0, 2, 5, 6, 7


class NCCLError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"result {status}")
        self.status = status


class World:
    """Who takes part under one unique id."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.ranks: set[int] = set()
        self.sent: dict[tuple[int, int], deque[bytes]] = defaultdict(deque)
        self.added: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        self.result = SUCCESS  # what all members are told from now on


class Fabric:
    """All GPUs, and what is known of them.

    Attributes:
        worlds: by unique id.
        log: (what, rank) of every communicator that was made or aborted.
        never_aborts: whether aborts do not come back.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.worlds: dict[bytes, World] = {}
        self.log: list[tuple[str, int]] = []
        self.aborts_end = threading.Event()
        self.aborts_end.set()

    def library(self, gpu: str, version: str = "2.32.3") -> Library:
        """As a member sees it, whose GPU this is."""
        device = _Device(gpu)
        versions = SimpleNamespace(libnccl=SimpleNamespace(version=version))
        nccl = SimpleNamespace(
            UniqueId=UniqueId,
            NCCLConfig=NCCLConfig,
            SUM=0,
            get_unique_id=self._get_unique_id,
            get_error_string=lambda nccl_result: f"error {nccl_result}",
            get_version=lambda: versions,
            group=device.stream.group,
            Communicator=SimpleNamespace(init=lambda *told: Communicator(self, device.stream, *told)),
        )
        cuda = SimpleNamespace(Device=lambda ordinal: device)
        return Library(nccl, cuda, NCCLError, _view_of)  # type: ignore[arg-type]

    def _get_unique_id(self) -> "UniqueId":
        with self.lock:
            made = UniqueId(len(self.worlds).to_bytes(128, "little"))
            self.worlds[bytes(made)] = World()
            return made

    def fail(self, result: int) -> None:
        """Tells all members of all worlds that there are by now."""
        for world in self.worlds.values():
            world.result = result


class UniqueId:
    def __init__(self, data: bytes) -> None:
        assert len(data) == 128
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data

    @staticmethod
    def from_bytes(b: bytes) -> "UniqueId":
        return UniqueId(b)


class NCCLConfig:
    def __init__(self, *, blocking: bool | None = None) -> None:
        assert blocking is False, "a member must be able to give up"


class _Device:
    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.stream = _Stream()
        self.current_in: set[int] = set()

    def set_current(self) -> None:
        self.current_in.add(threading.get_ident())

    def create_stream(self) -> "_Stream":
        assert threading.get_ident() in self.current_in
        return self.stream

    def sync(self) -> None:
        assert threading.get_ident() in self.current_in


class _Stream:
    """In which what has been put there comes to its end when it is looked at."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.posted: list[Any] | None = None
        self.accepted = True

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        self.posted = []
        try:
            yield
        finally:
            self.waiting += self.posted
            self.posted, self.accepted = None, False

    def record(self) -> Any:
        assert self.accepted, "NCCL may still put something on it"
        stream = self

        class Event:
            @property
            def is_done(self) -> bool:
                stream.waiting = [work for work in stream.waiting if not work()]
                return not stream.waiting

        return Event()

    def sync(self) -> None:
        assert not self.waiting, "it was aborted before"


class Communicator:
    def __init__(
        self,
        fabric: Fabric,
        stream: _Stream,
        nranks: int,
        rank: int,
        unique_id: UniqueId,
        config: NCCLConfig | None = None,
    ) -> None:
        assert config is not None
        self._fabric, self._stream, self._rank = fabric, stream, rank
        self._thread = threading.get_ident()
        self._world = fabric.worlds[bytes(unique_id)]
        self._num_sums = 0
        with fabric.lock:
            assert self._world.size in (None, nranks)
            assert rank not in self._world.ranks
            self._world.size = nranks
            self._world.ranks.add(rank)
            fabric.log.append(("made", rank))

    def get_async_error(self) -> int:
        assert threading.get_ident() == self._thread
        with self._fabric.lock:
            if self._world.result != SUCCESS:
                return self._world.result
            if len(self._world.ranks) < (self._world.size or 0):
                return IN_PROGRESS
        if not self._stream.accepted:  # at the second look
            self._stream.accepted = True
            return IN_PROGRESS
        return SUCCESS

    def send(self, sendbuf: Any, peer: int, *, stream: _Stream) -> None:
        data = bytes(self._bytes(sendbuf, stream))
        with self._fabric.lock:
            self._world.sent[self._rank, peer].append(data)

    def recv(self, recvbuf: Any, peer: int, *, stream: _Stream) -> None:
        target = self._bytes(recvbuf, stream)

        def work() -> bool:
            queue = self._world.sent[peer, self._rank]
            if not queue:
                return False
            data = queue.popleft()
            assert len(data) == len(target), "both ends have the same length"
            target[:] = data  # type: ignore[index]
            return True

        self._post(work)

    def allreduce(self, sendbuf: Any, recvbuf: Any, op: int, *, stream: _Stream) -> None:
        assert op == 0
        assert sendbuf is recvbuf, "in place"
        kind = np.dtype(sendbuf.__cuda_array_interface__["typestr"])
        target = np.frombuffer(self._bytes(recvbuf, stream), kind)
        number, self._num_sums = self._num_sums, self._num_sums + 1
        with self._fabric.lock:
            self._world.added[number][self._rank] = target.copy()

        def work() -> bool:
            added = self._world.added[number]
            if len(added) < (self._world.size or 0):
                return False
            target[:] = sum(added[rank] for rank in range(1, len(added))) + added[0]  # no order of ours
            return True

        self._post(work)

    def get_last_error(self) -> str:
        return "a socket was closed"

    def abort(self) -> None:
        self._fabric.aborts_end.wait()
        self._stream.waiting.clear()
        self._stream.accepted = True
        with self._fabric.lock:
            self._fabric.log.append(("aborted", self._rank))

    def _post(self, work: Any) -> None:
        assert self._stream.posted is not None, "exchanges whose calls wait for each other are one group"
        self._stream.posted.append(work)

    def _bytes(self, memory: Any, stream: _Stream) -> Any:
        assert threading.get_ident() == self._thread
        assert stream is self._stream
        if not self._stream.accepted or len(self._world.ranks) < (self._world.size or 0):
            raise NCCLError(INVALID_USAGE)
        told = memory.__cuda_array_interface__
        num_bytes = told["shape"][0] * np.dtype(told["typestr"]).itemsize
        return (ctypes.c_ubyte * num_bytes).from_address(told["data"][0])


def _view_of(array: Any) -> Any:
    # From NumPy 2 on, what it makes of TensorFlow's memory cannot be written through: only its address is wanted.
    seen = array if isinstance(array, np.ndarray) else np.from_dlpack(array)
    return SimpleNamespace(ptr=seen.__array_interface__["data"][0], dtype=seen.dtype)
