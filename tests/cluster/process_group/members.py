"""Members of process groups that tests run: real processes, which are told over pipes what to do."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from cluster.assignment import Member
from cluster.process_group import Endpoint, GroupAborted, PeerFault
from cluster.process_group.reduction import Reduction

KEY = b"a secret of the run"
_PATIENCE_S = 30.0


def part_of(number: int, step: int, num_elements: int, encoding: str = "", num_exact: int = 0) -> np.ndarray:
    """What a part contributes to a step: numbers whose sum depends on the order of addition.

    Where places of numbers travel, most of those that are encoded are zeros.
    """
    rng = np.random.default_rng([number, step])
    numbers = (rng.normal(size=num_elements) * 10.0 ** rng.integers(-6, 6, num_elements)).astype(np.float32)
    if encoding == "sparse":
        numbers[num_exact:][rng.random(num_elements - num_exact) > 0.3] *= 0  # zeros of either sign
    elif encoding == "float16":
        numbers[num_exact:] /= 1e4
    return numbers


def _serve(
    orders: Connection, aborts: Connection, worker: str, folder: Path | None, key: bytes, host_address: str
) -> None:
    endpoint = Endpoint(worker, host_address, key, folder)
    orders.send(endpoint.address)

    def listen() -> None:
        while True:
            endpoint.abort(aborts.recv())

    threading.Thread(target=listen, daemon=True).start()
    group = None
    while (order := orders.recv()) is not None:
        name, arguments = order
        try:
            if name == "join":
                members, rank, generation, timeout_s = arguments
                group = endpoint.join(members, rank, generation, timeout_s)
                orders.send(("done", None))
                continue
            assert group is not None
            if name == "sum":
                parts, num_parts, num_elements, steps, *encoded = arguments
                reduction = group.reduction(parts, num_parts, num_elements, np.float32, *encoded)
                digest = hashlib.sha256()
                for step in range(steps):
                    for own, part in zip(reduction.own, parts[group.rank], strict=True):
                        own[:] = part_of(part, step, num_elements, *encoded)
                    digest.update(reduction.run().tobytes())
                orders.send(("done", digest.hexdigest()))
            elif name == "dies in a range":
                parts, num_parts, num_elements, ranges, number = arguments
                reduction = group.reduction(parts, num_parts, num_elements, np.float32, ranges=ranges)
                whole = [part_of(part, 0, num_elements) for part in parts[group.rank]]
                _add_early(reduction, whole, ranges[:number])
                # Where it waits for the others: some frames have left, or it has told them that it has come so far.
                group._links.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
                if reduction._meeting is not None:
                    reduction._meeting.wait = group._links.finish
                _add_early(reduction, whole, ranges[number:])
            elif name == "ranges":
                parts, num_parts, num_elements, steps, ranges, *encoded = arguments
                told = encoded or (None, 0)
                reduction = group.reduction(parts, num_parts, num_elements, np.float32, *told, ranges)
                digest = hashlib.sha256()
                for step in range(steps):
                    whole = [part_of(part, step, num_elements, *encoded) for part in parts[group.rank]]
                    for own, part in zip(reduction.own, whole, strict=True):
                        own[:] = np.nan  # what is not there yet
                        last = ranges[-1]
                        own[last[0] : last[1]] = part[last[0] : last[1]]
                    early = threading.Thread(target=_add_early, args=(reduction, whole, ranges[:-1]))
                    early.start()
                    early.join()
                    digest.update(reduction.run().tobytes())
                orders.send(("done", digest.hexdigest()))
            elif name == "gather":
                orders.send(("done", group.all_gather(arguments)))
            elif name in ("transfer", "dies while it sends"):
                senders, receivers, shape = arguments
                if name == "dies while it sends":
                    # It has filled all the slots that there are, and the other one may empty some of them.
                    group._links.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
                sends, sent_before = group.rank in senders, group.num_bytes_sent
                arrays = [np.arange(np.prod(shape), dtype=np.float64).reshape(shape) * sends, np.full((), 7.0 * sends)]
                group.transfer(senders, receivers, arrays)
                num_sent = group.num_bytes_sent - sent_before
                orders.send(("done", [*(array.tobytes() for array in arrays), num_sent]))
        except (PeerFault, TimeoutError) as error:
            orders.send((type(error).__name__, str(error)))
        except GroupAborted as error:
            orders.send(("aborted", str(error)))
    os._exit(0)


def _add_early(reduction: Reduction, whole: Sequence[np.ndarray], ranges: Sequence[tuple[int, int]]) -> None:
    """Adds up ranges on this thread, each when it has just been put."""
    for begin, end in ranges:
        for own, part in zip(reduction.own, whole, strict=True):
            own[begin:end] = part[begin:end]
        reduction.run_range()


class Process:
    """One member's process.

    Args:
        worker: its name.
        host: that it pretends to be on.
        folder: that its host's processes share; None: no shared memory.
        key: the run's secret.
        host_address: that it listens at.
    """

    def __init__(
        self,
        worker: str,
        host: str = "a",
        folder: Path | None = None,
        key: bytes = KEY,
        host_address: str = "127.0.0.1",
    ) -> None:
        self.worker, self.host = worker, host
        self.orders, theirs = multiprocessing.Pipe()
        self._aborts, heard = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(
            target=_serve, args=(theirs, heard, worker, folder, key, host_address), daemon=True
        )
        self.process.start()
        self.address = self.orders.recv()

    def order(self, name: str, *arguments: Any) -> None:
        self.orders.send((name, arguments[0] if len(arguments) == 1 else arguments))

    def abort(self, generation: int) -> None:
        """Ends its groups up to this one, whatever it is doing."""
        self._aborts.send(generation)

    def answer(self) -> tuple[str, Any]:
        assert self.orders.poll(_PATIENCE_S), f"{self.worker} does not answer"
        return self.orders.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def first_to_answer(processes: Sequence[Process]) -> Process:
    """Whoever has something to say first."""
    ready = wait([one.orders for one in processes], _PATIENCE_S)
    assert ready, "nobody answers"
    return next(one for one in processes if one.orders in ready)


def members_of(processes: Sequence[Process]) -> list[Member]:
    return [Member(one.worker, one.host, rank, one.address) for rank, one in enumerate(processes)]


def join(processes: Sequence[Process], generation: int, timeout_s: float = 20.0) -> list[tuple[str, Any]]:
    """All of them form a group; what each says of it."""
    members = members_of(processes)
    for rank, one in enumerate(processes):
        one.order("join", members, rank, generation, timeout_s)
    return [one.answer() for one in processes]


def ask(processes: Sequence[Process], name: str, *arguments: Any) -> list[tuple[str, Any]]:
    """All of them do the same; what each says."""
    for one in processes:
        one.order(name, *arguments)
    return [one.answer() for one in processes]


@contextmanager
def processes(hosts: Sequence[str], shared: Path | None) -> Iterator[list[Process]]:
    """A process on each of these hosts; those of one host share a folder below `shared`."""
    made: list[Process] = []
    try:
        for number, host in enumerate(hosts):
            folder = None if shared is None else shared / host
            if folder is not None:
                folder.mkdir(exist_ok=True)
            made.append(Process(f"w{number + 1}", host, folder))
        yield made
    finally:
        for one in made:
            one.end()
