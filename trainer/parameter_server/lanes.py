"""Calls on the workers: a lane for each, which takes the next call as soon as its worker is done with the last.

A call that a worker's death has cut off is made again, on another worker. Nothing has come of it until then, because a
call only computes: what it gives is used after it has come back, once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import tensorflow as tf

# TensorFlow offers both only through its ClusterCoordinator, which fetches whatever a call gives to the coordinator.
from tensorflow.python.eager import context, executor

from trainer.group import Group
from trainer.parameter_server.presence import listens
from trainer.parameter_server.roles import Roles
from trainer.parameter_server.server import threads_for

_LOOK_S = 0.1
_ARRIVAL_S = 300.0
_Result = TypeVar("_Result")

# How TensorFlow puts it that a process is gone, or that another one is in its place that knows nothing yet.
_OF_A_DEATH = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
_OF_A_SUCCESSOR = (
    "unknown device",
    "Unable to find the relevant tensor remote_handle",
    "Unable to find a context_id",
    "Primary device is not remote",
    "is neither a type of a primitive operation nor a name of a function registered",
)


class ServerLost(ConnectionError):
    """A parameter server is gone, and with it a part of the state."""


def connect(group: Group, roles: Roles) -> None:
    """Makes this process the coordinator of the group. Before TensorFlow starts its devices.

    Raises:
        ConnectionError: Not all members listen within five minutes.
    """
    os.environ["TF_GRPC_REUSE_PORT"] = "1"
    # One call at a time goes to each worker and is waited for, so that an error belongs to the call that meets it.
    os.environ["TF_ENABLE_EAGER_CLIENT_STREAMING_ENQUEUE"] = "False"
    os.environ["TF_PS_DISABLE_ASYNC_EXECUTOR_GLOBALLY"] = "True"
    until = time.monotonic() + _ARRIVAL_S
    while missing := [address for address in group.addresses[1:] if not listens(address)]:
        if time.monotonic() > until:
            raise ConnectionError(f"{missing[0]} has not begun to serve within {_ARRIVAL_S:.0f} s")
        time.sleep(_LOOK_S)
    # The workers need not know each other, so that the death of one is nothing to the rest.
    filters = tf.config.experimental.ClusterDeviceFilters()
    for worker in range(roles.workers):
        filters.set_device_filters("worker", worker, ["/job:ps", "/job:chief"])
    for server in range(roles.parameter_servers):
        filters.set_device_filters("ps", server, ["/job:ps", "/job:worker", "/job:chief"])
    with contextlib.suppress(RuntimeError):  # TensorFlow has started, and keeps the number that it has
        tf.config.threading.set_inter_op_parallelism_threads(threads_for(group.size))
    tf.config.experimental_connect_to_cluster(
        tf.train.ClusterSpec(roles.cluster(group.addresses)),
        job_name="chief",
        task_index=0,
        protocol="grpc",
        cluster_device_filters=filters,
    )


class _Call(NamedTuple):
    number: int
    function: Callable[[], Any]
    batch: _Batch[Any]


class Lanes:
    """The workers of a connected cluster.

    Args:
        group: The members.
        roles: Of the group.
        on_lost: Called with a worker's number when it is found to be gone, on its lane's thread.
        on_back: Called with a worker's number when another process has taken its place.
    """

    def __init__(
        self,
        group: Group,
        roles: Roles,
        on_lost: Callable[[int], None] | None = None,
        on_back: Callable[[int], None] | None = None,
    ) -> None:
        cluster = roles.cluster(group.addresses)
        self._workers, self._servers = cluster["worker"], cluster["ps"]
        self._on_lost, self._on_back = on_lost, on_back
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._recovery = threading.Lock()
        for number in range(len(self._workers)):
            threading.Thread(target=self._serve, args=(number,), name=f"lane-{number}", daemon=True).start()

    def run(self, functions: Sequence[Callable[[], _Result]]) -> list[_Result]:
        """Makes each call once, on any worker, as many at a time as there are workers; they begin in order.

        Returns:
            What they give, in their order.

        Raises:
            ServerLost: A parameter server is gone.
            Exception: What a call raised, after the others have ended.
        """
        return self.begin(functions)()

    def begin(self, functions: Sequence[Callable[[], _Result]]) -> Callable[[], list[_Result]]:
        """Does not wait; what it gives back does, with what `run` returns and raises."""
        batch: _Batch[_Result] = _Batch(len(functions))
        for number, function in enumerate(functions):
            self._calls.put(_Call(number, function, batch))
        return batch.wait

    def _serve(self, worker: int) -> None:
        device = f"/job:worker/replica:0/task:{worker}"
        # One of its own, because an error of the executor that threads share would reach them all.
        own = executor.new_executor(enable_async=False)
        while True:
            call = self._calls.get()
            if call.batch.failed:
                call.batch.leave_out()
                continue
            try:
                with tf.device(device), context.executor_scope(own):
                    result = call.function()
            except Exception as error:
                self._after_failure(worker, call, error)
            else:
                call.batch.finish(call.number, result)

    def _after_failure(self, worker: int, call: _Call, error: Exception) -> None:
        if not _is_of_the_machine(error):
            call.batch.fail(error)
            return
        if lost := next((address for address in self._servers if not listens(address)), None):
            call.batch.fail(ServerLost(f"the parameter server at {lost} is gone"))
            return
        self._calls.put(call)
        if self._on_lost:
            self._on_lost(worker)
        while not self._reconnect():
            time.sleep(_LOOK_S)
        if self._on_back:
            self._on_back(worker)

    def _reconnect(self) -> bool:
        """Tells TensorFlow to look who is there now. It waits for each that is missing, so all must be there."""
        if not all(map(listens, self._workers)):
            return False
        with self._recovery:
            try:
                context.context().update_server_def(context.get_server_def())  # type: ignore[union-attr]
            except tf.errors.OpError:
                return False
        return True


class _Batch(Generic[_Result]):
    """Calls that are waited for together."""

    def __init__(self, size: int) -> None:
        self._results: list[_Result | None] = [None] * size
        self._left = size
        self._error: Exception | None = None
        self._changed = threading.Condition()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def finish(self, number: int, result: _Result) -> None:
        with self._changed:
            self._results[number] = result
            self._one_less()

    def fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or error
            self._one_less()

    def leave_out(self) -> None:
        with self._changed:
            self._one_less()

    def wait(self) -> list[_Result]:
        with self._changed:
            self._changed.wait_for(lambda: self._left == 0)
        if self._error is not None:
            raise self._error
        return self._results  # type: ignore[return-value]

    def _one_less(self) -> None:
        self._left -= 1
        self._changed.notify_all()


def _is_of_the_machine(error: Exception) -> bool:
    """Whether a process that is gone explains the error; else it is the model's, and would come again."""
    if isinstance(error, _OF_A_DEATH):
        return True
    return isinstance(error, tf.errors.OpError) and any(sign in str(error) for sign in _OF_A_SUCCESSOR)
