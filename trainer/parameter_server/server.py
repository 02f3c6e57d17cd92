"""A parameter server or a worker: a process that does what its coordinator sends it, and ends with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import tensorflow as tf

from trainer.config.strategy import StrategyConfig
from trainer.group import Group
from trainer.parameter_server.presence import listens
from trainer.parameter_server.roles import Roles

SERVE = "serve"
"""The phase of a member that makes no progress of its own."""

_LOOK_S = 0.2


def is_server(config: StrategyConfig, group: Group | None) -> bool:
    """Whether this member of a group serves a coordinator instead of training itself."""
    return config.name == "parameter_server" and group is not None and not group.is_chief


def threads_for(members: int) -> int:
    """Threads that a member needs for calls. A call waits in one of them for the servers that it reads from, and where
    all are taken by calls that wait, none goes on."""
    return 2 * members + 2


def serve(group: Group, roles: Roles, on_progress: Callable[[int, str], None] | None = None) -> None:
    """Serves the coordinator until it is gone; it comes first when the generation forms, and ends first.

    A stop that the run is asked for is the coordinator's to carry out: it still needs its servers to save the state.

    Args:
        group: The members; this one is no coordinator.
        roles: Of the group.
        on_progress: Called once, with the phase "serve", when this process listens.

    Raises:
        tf.errors.OpError: The address of this member cannot be listened at.
    """
    # Whoever chose the port keeps it bound until this server listens, so that nobody else takes it in between.
    os.environ["TF_GRPC_REUSE_PORT"] = "1"
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    job, number = roles.task(group.rank)
    cluster = tf.train.ClusterSpec(roles.cluster(group.addresses))
    settings = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=threads_for(group.size))
    server = tf.distribute.Server(cluster, job_name=job, task_index=number, protocol="grpc", config=settings)
    if on_progress:
        on_progress(0, SERVE)
    coordinator = group.addresses[0]
    while not listens(coordinator):
        time.sleep(_LOOK_S)
    while listens(coordinator):
        time.sleep(_LOOK_S)
    del server  # held until here: it serves as long as it exists
