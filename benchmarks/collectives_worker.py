"""One member of a group in benchmarks/collectives.py.

python -m benchmarks.collectives_worker KIND RANK SIZE FOLDER

A word is two numbers: bytes of float32 to add up, and how often; all members get the same word. The answer has
`seconds` of one all-reduce. KIND: `shared` and `tcp` are the process group, `ring` is MultiWorkerMirrored, `gloo` is
Gloo as JAX binds it for processors; `memcpy` copies as many bytes in every member at the same time, `socket` sends as
many to the neighbour and gets as many at once.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from benchmarks.strategies_worker import exchanged
from cluster.assignment import Member
from cluster.process_group import Endpoint, ProcessGroup
from cluster.reserved_port import ReservedPort, split_address

_KEY = b"of this benchmark"
_PIECE_BYTES = 1 << 20
_KEPT_BYTES = 64 << 20  # the memory of larger sums is given back after a turn: the other contenders need it
_JOIN_S = 60.0

Work = Callable[[int, int], float]
"""(elements, how often) -> seconds of all of them."""


def _timed(group: ProcessGroup, once: Callable[[], object], times: int) -> float:
    once()
    group.barrier()
    since = time.perf_counter()
    for _ in range(times):
        once()
    return time.perf_counter() - since


class _Generations:
    """The groups that this member joins with the same peers, one after the other."""

    def __init__(self, endpoint: Endpoint, members: Sequence[Member], rank: int) -> None:
        self._endpoint, self._members, self._rank = endpoint, members, rank
        self._number = 0
        self.group = self.next()

    def next(self) -> ProcessGroup:
        self._number += 1
        self.group = self._endpoint.join(self._members, self._rank, self._number, _JOIN_S)
        return self.group

    def give_memory_back(self) -> None:
        """Regions that nobody used for two generations are removed, and unmapped with the next reduction."""
        for _ in range(4):
            self.next()
        size = self.group.size
        self.group.reduction([range(rank, rank + 1) for rank in range(size)], size, 16, np.float32)


def _reduce(generations: _Generations) -> Work:
    def work(num_elements: int, times: int) -> float:
        group = generations.group
        parts = [range(rank, rank + 1) for rank in range(group.size)]
        reduction = group.reduction(parts, group.size, num_elements, np.float32)
        for _ in range(2):  # both sets of memory
            reduction.own[0][:] = group.rank
            reduction.run()

        def once() -> None:
            assert reduction.own
            reduction.run()

        seconds = _timed(group, once, times)
        group.barrier()
        generations.next()  # gives the regions of this reduction back
        if 4 * num_elements > _KEPT_BYTES:
            del reduction
            generations.give_memory_back()
        return seconds

    return work


def _copy(group: ProcessGroup) -> Work:
    def work(num_elements: int, times: int) -> float:
        source, target = np.ones(num_elements, np.float32), np.empty(num_elements, np.float32)
        return _timed(group, lambda: np.copyto(target, source), times)

    return work


def _send(group: ProcessGroup) -> Work:
    """A ring of plain sockets: each member sends to the next one and gets from the one before at the same time."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}".encode()
    addresses = [answer.decode() for answer in group.all_gather(address)]
    outgoing = socket.create_connection(split_address(addresses[(group.rank + 1) % group.size]))
    incoming, _ = listener.accept()
    outgoing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def work(num_elements: int, times: int) -> float:
        data, got = np.ones(4 * num_elements, np.uint8), np.empty(4 * num_elements, np.uint8)

        def receive() -> None:
            view, have = memoryview(got), 0
            while have < len(view):
                have += incoming.recv_into(view[have : have + _PIECE_BYTES])

        def once() -> None:
            if len(data) <= 1 << 15:  # fits into the socket's buffer: no thread is needed
                outgoing.sendall(data)
                receive()
                return
            thread = threading.Thread(target=outgoing.sendall, args=(data,))
            thread.start()
            receive()
            thread.join()

        return _timed(group, once, times)

    return work


def _ring(rank: int, addresses: list[str]) -> Work:
    os.environ["TF_GRPC_REUSE_PORT"] = "1"
    import tensorflow as tf

    implementation = tf.distribute.experimental.CommunicationImplementation.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=implementation)
    cluster = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}), task_type="worker", task_id=rank, rpc_layer="grpc"
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster, options)

    def replica(value: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        # It takes the device of the sum from the tensor: a captured one has none.
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value), options)

    @tf.function(autograph=False)
    def reduce(value: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        # Many in one call, and each on the same numbers: the call itself does not count.
        return tf.while_loop(
            lambda i, _: i < number,
            lambda i, _: (i + 1, tf.reshape(strategy.run(replica, args=(value,)), [-1])[:1]),
            (tf.constant(0), tf.zeros([1])),
        )[1]

    def work(num_elements: int, times: int) -> float:
        value = tf.ones([num_elements])
        reduce(value, tf.constant(1))
        since = time.perf_counter()
        reduce(value, tf.constant(times)).numpy()
        return time.perf_counter() - since

    return work


def _gloo(rank: int, addresses: list[str]) -> Work:
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(addresses[0], len(addresses), rank)
    mesh = jax.make_mesh((len(addresses),), ("members",))
    spread = jax.sharding.PartitionSpec("members")

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(spread, jax.sharding.PartitionSpec()), out_specs=spread)
    def reduce(value: jax.Array, number: jax.Array) -> jax.Array:
        # As above; sums of nothing but zeros stay zeros, so that each is of the one before it.
        total = jax.lax.fori_loop(
            0,
            number,
            lambda _, value: jax.lax.pcast(jax.lax.psum(value, "members"), ("members",), to="varying"),
            value,
        )
        return total[:1]

    def work(num_elements: int, times: int) -> float:
        sharding = jax.sharding.NamedSharding(mesh, spread)
        shape = (num_elements * len(addresses),)
        zeros = np.zeros(num_elements, np.float32)
        value = jax.make_array_from_process_local_data(sharding, zeros, shape)
        reduce(value, 1).block_until_ready()
        since = time.perf_counter()
        reduce(value, times).block_until_ready()
        return time.perf_counter() - since

    return work


def main() -> None:
    """Serves words until the input ends."""
    kind, rank, size, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if kind in ("ring", "gloo"):
        with ReservedPort("127.0.0.1") as port:
            addresses = exchanged(folder, rank, port.address, size)
            _serve((_ring if kind == "ring" else _gloo)(rank, addresses), answers)
        return
    with Endpoint(f"w{rank}", "127.0.0.1", _KEY, None if kind == "tcp" else folder / "shared") as endpoint:
        addresses = exchanged(folder, rank, endpoint.address, size)
        host = "host-{}" if kind == "tcp" else "host"
        members = [Member(f"w{i}", host.format(i), i, address) for i, address in enumerate(addresses)]
        generations = _Generations(endpoint, members, rank)
        group = generations.group
        works = {"memcpy": lambda: _copy(group), "socket": lambda: _send(group)}
        _serve(works.get(kind, lambda: _reduce(generations))(), answers)


def _serve(work: Work, answers: TextIO) -> None:
    print(json.dumps({}), file=answers, flush=True)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    for word in sys.stdin:
        num_bytes, times = map(int, word.split())
        seconds = work(num_bytes // 4, times) / times
        if num_bytes > _KEPT_BYTES and trim is not None:
            trim(0)
        print(json.dumps({"seconds": seconds}), file=answers, flush=True)
    os._exit(0)  # TensorFlow may wait for peers that are gone


if __name__ == "__main__":
    main()
