"""One member of a group in benchmarks/collectives.py.

python -m benchmarks.collectives_worker KIND RANK SIZE FOLDER

A word is two numbers: bytes of float32 to add up, and how often; all members get the same word. The answer has
`seconds` of one all-reduce. KIND: `shared` and `tcp` are the process group, `ring` is MultiWorkerMirrored; `memcpy`
copies as many bytes in every member at the same time, `socket` sends as many to the neighbour and gets as many at once.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from benchmarks.strategies_worker import exchanged
from cluster.assignment import Member
from cluster.process_group import Endpoint, ProcessGroup
from cluster.reserved_port import ReservedPort, split_address

_KEY = b"of this benchmark"
_PIECE_BYTES = 1 << 20

Work = Callable[[int, int], float]
"""(elements, how often) -> seconds of all of them."""


def _timed(group: ProcessGroup, once: Callable[[], object], times: int) -> float:
    once()
    group.barrier()
    since = time.perf_counter()
    for _ in range(times):
        once()
    return time.perf_counter() - since


def _reduce(group: ProcessGroup) -> Work:
    def work(num_elements: int, times: int) -> float:
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
        reduction.release()
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

    def work(num_elements: int, times: int) -> float:
        def replica(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value, options)

        @tf.function(autograph=False)
        def reduce(value: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
            # Many in one call, and each on the same numbers: the call itself does not count.
            return tf.while_loop(
                lambda i, _: i < number,
                lambda i, _: (i + 1, tf.reshape(strategy.run(replica, args=(value,)), [-1])[:1]),
                (tf.constant(0), tf.zeros([1])),
            )[1]

        value = tf.ones([num_elements])
        reduce(value, tf.constant(1))
        since = time.perf_counter()
        reduce(value, tf.constant(times)).numpy()
        return time.perf_counter() - since

    return work


def main() -> None:
    """Serves words until the input ends."""
    kind, rank, size, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if kind == "ring":
        with ReservedPort("127.0.0.1") as port:
            _serve(_ring(rank, exchanged(folder, rank, port.address, size)), answers)
        return
    with Endpoint(f"w{rank}", "127.0.0.1", _KEY, None if kind == "tcp" else folder / "shared") as endpoint:
        addresses = exchanged(folder, rank, endpoint.address, size)
        host = "host-{}" if kind == "tcp" else "host"
        members = [Member(f"w{i}", host.format(i), i, address) for i, address in enumerate(addresses)]
        group = endpoint.join(members, rank, 1, 60.0)
        works = {"memcpy": lambda: _copy(group), "socket": lambda: _send(group)}
        _serve(works.get(kind, lambda: _reduce(group))(), answers)


def _serve(work: Work, answers: TextIO) -> None:
    print(json.dumps({}), file=answers, flush=True)
    for word in sys.stdin:
        num_bytes, times = map(int, word.split())
        print(json.dumps({"seconds": work(num_bytes // 4, times) / times}), file=answers, flush=True)
    os._exit(0)  # TensorFlow may wait for peers that are gone


if __name__ == "__main__":
    main()
