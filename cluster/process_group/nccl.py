"""NCCL between the GPUs of a generation's members: a communicator that can be given up at once and formed anew.

NCCL's own model is a fixed world: a communicator is made from a unique id and a number of ranks, and who waits in one
for a member that is dead waits for ever. What makes it fit is that nothing here waits inside NCCL: the communicator is
a non-blocking one, so that every call returns at once, and its progress, the work on its stream and the end of the
generation are looked at in turns, by the one thread that uses it. An abort from any other thread ends the generation as
everywhere (`Endpoint.abort`); that thread then aborts the communicator itself, because NCCL's calls on one communicator
are not to be made by two threads at a time.

The unique id travels over the proved connections of the group, so that whoever does not know the run's key does not
learn it. NCCL's own connections are neither proved nor checked.

Nothing of it has ever run on a GPU: see docs/design/nccl.md.
"""

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

from cluster.process_group.device_sum import Slice
from cluster.process_group.errors import GroupAborted
from cluster.process_group.links import Links

# Looked at without a pause for so long, then with pauses: sums between GPUs of a host take tens of microseconds.
_LOOK_S = 0.002
_PAUSE_S = 0.0005
# For the supervisor to end a generation of which a member or the network has gone.
_SUPERVISOR_S = 60.0
_ABORT_S = 30.0

_SUCCESS, _IN_PROGRESS = 0, 7
# What a dead member, or the way to it, looks like: SystemError, RemoteError, Timeout. Everything else is our own.
_ABOUT_OTHERS = (2, 6, 8)

INSTALL = "pip install 'phalanx[nccl]', or set elastic.nccl=off"


class NcclMissing(Exception):
    """NCCL cannot be used in this process; the message says what to install."""


class _Unsuccessful(Exception):
    """What NCCL's work has come to, beside the calls that began it.

    Args:
        status: the number of NCCL's result.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class NcclFailed(RuntimeError):
    """This member's GPU or NCCL cannot go on, or cannot be stopped: the process has to be replaced."""


class _Memory:
    """Some bytes of a GPU's memory, as CUDA's array interface describes them.

    Args:
        address: where they begin.
        num_elements, kind: how many of which type ("|u1": bytes).
        owner: kept as long as this.
    """

    def __init__(self, address: int, num_elements: int, kind: str, owner: object) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": (num_elements,),
            "typestr": kind,
            "data": (address, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }


@dataclass(frozen=True)
class Library:
    """nccl4py and what it stands on.

    Attributes:
        nccl: the module nccl.core.
        cuda: the module cuda.core.
        error: what its calls raise; has the number of NCCL's result as `status`.
        view_of: an array that speaks DLPack, as `ptr` and `dtype`.
    """

    nccl: ModuleType
    cuda: ModuleType
    error: type[Exception]
    view_of: Callable[[Any], Any]

    @classmethod
    def load(cls) -> "Library":
        """Imports it; it must be installed beside TensorFlow's own libraries of CUDA.

        Raises:
            NcclMissing: it is not installed, or does not find NCCL.
        """
        try:
            nccl = importlib.import_module("nccl.core")
            error = importlib.import_module("nccl.bindings.nccl").NCCLError
            cuda = importlib.import_module("cuda.core")
            view = importlib.import_module("cuda.core.utils").StridedMemoryView
            if nccl.get_version().libnccl is None:
                raise NcclMissing(f"nccl4py does not find libnccl: {INSTALL}")
        except ImportError as problem:
            raise NcclMissing(f"nccl4py is not installed ({problem}): {INSTALL}") from problem
        return cls(nccl, cuda, error, lambda array: view.from_dlpack(array, stream_ptr=-1))

    @property
    def version(self) -> str:
        """Of NCCL itself."""
        return str(self.nccl.get_version().libnccl.version)


def offer(ordinal: int, library: Library | None, makes_id: bool) -> dict[str, Any]:
    """What a member says of its GPU before a communicator is formed, for JSON.

    Args:
        ordinal: of the GPU, as CUDA counts those that this process sees.
        library: None: the installed one.
        makes_id: whether it is the one that makes the unique id.

    Returns:
        Under "why" what keeps this member from taking part, for a person; else "gpu", "nccl" and perhaps "id".
    """
    try:
        library = library or Library.load()
        told = {"gpu": str(library.cuda.Device(ordinal).uuid), "nccl": library.version}
        return {**told, "id": bytes(library.nccl.get_unique_id()).hex()} if makes_id else told
    except NcclMissing as problem:
        return {"why": str(problem)}
    except Exception as problem:  # of a driver or a library: as many types as there are packages below
        return {"why": f"NCCL cannot be used ({type(problem).__name__}: {problem}): check the driver, or {INSTALL}"}


def obstacle(offers: Sequence[dict[str, Any]]) -> str | None:
    """Why the members that made these offers, by rank, have no communicator; None: they can have one."""
    for rank, told in enumerate(offers):
        if "why" in told:
            return f"rank {rank}: {told['why']}"
    by_gpu: dict[str, int] = {}
    for rank, told in enumerate(offers):
        first = by_gpu.setdefault(told["gpu"], rank)
        if first != rank:
            return (
                f"ranks {first} and {rank} use the same GPU {told['gpu']}, which NCCL cannot: give each worker one of "
                "its own, or start as many workers as there are GPUs"
            )
        if told["nccl"] != offers[0]["nccl"]:
            return (
                f"rank {rank} has NCCL {told['nccl']} and rank 0 has NCCL {offers[0]['nccl']}: install the same one on "
                "all hosts"
            )
    return None


class Communicator:
    """One member's end of a generation's communicator; a `Wire`. For one thread, the one that made it.

    Args:
        offers: of all members, by rank, against which there is no `obstacle`.
        rank: this member's.
        ordinal: of its GPU.
        operation: begins an operation of the group and gives its connections, which tell when the generation ends.
        library: None: the installed one.

    Raises:
        GroupAborted: the generation was ended meanwhile.
        NcclFailed: this member cannot take part.
    """

    def __init__(
        self,
        offers: Sequence[dict[str, Any]],
        rank: int,
        ordinal: int,
        operation: Callable[[], AbstractContextManager[Links]],
        library: Library | None = None,
    ) -> None:
        self._library = library or Library.load()
        self._operation, self._rank = operation, rank
        self._device = self._library.cuda.Device(ordinal)
        self._comm: Any = None
        nccl = self._library.nccl
        with self._operation() as links:
            self._device.set_current()
            self._stream = self._device.create_stream()
            unique_id = nccl.UniqueId.from_bytes(bytes.fromhex(offers[0]["id"]))
            with self._given_up_on_failure(links, f"connecting {len(offers)} GPUs"):
                self._comm = nccl.Communicator.init(len(offers), rank, unique_id, nccl.NCCLConfig(blocking=False))
                self._wait(links, self._is_accepted)

    def exchange(self, sends: Sequence[tuple[int, Slice]], receives: Sequence[tuple[int, Slice]]) -> None:
        """See `Wire`. Arrays speak DLPack and lie on this member's GPU; what is only moved is bytes of any type."""

        def calls() -> None:
            for peer, place in sends:
                self._comm.send(self._memory(place), peer, stream=self._stream)
            for peer, place in receives:
                self._comm.recv(self._memory(place), peer, stream=self._stream)

        self._run("an exchange", calls)

    def add_up_in_place(self, array: Any) -> None:
        """See `Wire`. NCCL chooses the order of addition by the number of ranks, the size and the topology."""

        def calls() -> None:
            view = self._library.view_of(array)
            whole = _Memory(int(view.ptr), len(array), view.dtype.str, array)
            self._comm.allreduce(whole, whole, self._library.nccl.SUM, stream=self._stream)

        self._run("an all-reduce", calls)

    def close(self) -> None:
        """Gives it up, whatever is under way on the GPU; the members need not do so at the same time.

        Raises:
            NcclFailed: NCCL does not come back. The process cannot use its GPU any more and has to be replaced.
        """
        if self._comm is None:
            return
        comm, self._comm = self._comm, None

        def give_up() -> None:
            self._device.set_current()  # of this thread
            comm.abort()
            # Kernels that still write have ended before anybody else gets their memory.
            self._stream.sync()

        thread = threading.Thread(target=give_up, name="nccl-abort", daemon=True)
        thread.start()
        thread.join(_ABORT_S)
        if thread.is_alive():
            raise NcclFailed(f"NCCL did not give up within {_ABORT_S:g} s on rank {self._rank}: the worker is replaced")

    def _run(self, doing: str, calls: Callable[[], None]) -> None:
        """Makes calls as one operation of NCCL, and returns when it is done."""
        with self._operation() as links, self._given_up_on_failure(links, doing):
            self._device.set_current()
            # What is sent has then been computed, and nobody reads any more what is written over.
            self._device.sync()
            with self._library.nccl.group():
                calls()
            self._wait(links, self._is_accepted)  # before that nothing else may be put on the stream
            done = self._stream.record()
            self._wait(links, lambda: self._is_accepted() and done.is_done)

    def _is_accepted(self) -> bool:
        result = int(self._comm.get_async_error())
        if result not in (_SUCCESS, _IN_PROGRESS):
            raise _Unsuccessful(result)
        return result == _SUCCESS

    def _wait(self, links: Links, is_over: Callable[[], bool]) -> None:
        """Returns when it is. Raises GroupAborted, and what NCCL comes to."""
        began = time.monotonic()
        while not is_over():
            if time.monotonic() - began < _LOOK_S:
                links.check()
            else:
                links.wait_for_end(_PAUSE_S)

    @contextmanager
    def _given_up_on_failure(self, links: Links, doing: str) -> Iterator[None]:
        try:
            yield
        except GroupAborted:
            self.close()
            raise
        except (self._library.error, _Unsuccessful) as error:
            self._fail(links, doing, int(error.status))  # type: ignore[attr-defined]
        except BaseException:
            self.close()
            raise

    def _fail(self, links: Links, doing: str, status: int) -> NoReturn:
        """What is wrong with others is the supervisor's to judge, as with a connection that breaks.

        Raises:
            GroupAborted: the generation was ended, because another member is dead or unreachable.
            NcclFailed: it was not, or this member itself is what is wrong.
        """
        words = f"{doing} between GPUs failed on rank {self._rank}: {self._library.nccl.get_error_string(status)}"
        if self._comm is not None:
            detail = self._comm.get_last_error()
            words += f" ({detail})" if detail else ""
            self.close()
        if status not in _ABOUT_OTHERS:
            raise NcclFailed(f"{words}: look at nvidia-smi and dmesg on this host, or set elastic.nccl=off")
        print(f"{words}; waiting for the next group", file=sys.stderr, flush=True)
        links.wait_for_end(_SUPERVISOR_S)
        raise NcclFailed(
            f"{words}, and in {_SUPERVISOR_S:g} s no member was found dead: check the network between the hosts "
            "(NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO), or set elastic.nccl=off"
        )

    def _memory(self, place: Slice) -> _Memory:
        view = self._library.view_of(place.array)
        size = view.dtype.itemsize
        length = place.end - place.begin
        return _Memory(int(view.ptr) + place.begin * size, length * size, "|u1", place.array)
