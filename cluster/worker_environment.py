"""The environment that an agent starts its workers in: how they find it, and which threads and devices are theirs."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.reserved_port import TENSORFLOW_SHARES_PORTS

# Set by the agent, read by the worker's link.
LINK_DESCRIPTOR = "PHALANX_LINK_FD"
AGENT_PID = "PHALANX_AGENT_PID"
WORKER_NAME = "PHALANX_WORKER"
HOST_ADDRESS = "PHALANX_HOST_ADDRESS"

TPU_SLICE = "PHALANX_TPU_SLICE"
"""The name of the slice of several hosts whose first one runs the worker; set where there is one."""

_THREAD_SETTINGS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Share:
    """What one of a host's workers may use.

    Threads are limited from the start, for libraries make their pools when they are imported. Devices are given to
    members only: a standby can step in for any of them, so it must not touch a device before its assignment.

    Attributes:
        threads: threads of each of its pools; None: as many as the libraries like.
        devices: GPUs by number or UUID; empty: none; None: all.

    >>> Share(threads=2).at_start()["OMP_NUM_THREADS"]
    '2'
    >>> Share(devices=("0", "1")).as_member()
    {'CUDA_VISIBLE_DEVICES': '0,1'}
    >>> Share().at_start(), Share().as_member()
    ({}, {})
    """

    threads: int | None = None
    devices: tuple[str, ...] | None = None

    def at_start(self) -> dict[str, str]:
        """The variables that a worker is started with."""
        return {} if self.threads is None else dict.fromkeys(_THREAD_SETTINGS, str(self.threads))

    def as_member(self) -> dict[str, str]:
        """The variables that a worker gets with its first assignment."""
        return {} if self.devices is None else {"CUDA_VISIBLE_DEVICES": ",".join(self.devices)}


def divide(slots: int, threads: int | None = None, devices: Sequence[str] | None = None) -> tuple[Share, ...]:
    """Divides a host among its workers: as equally as it can, every device to one of them.

    Args:
        slots: workers that run at once.
        threads: of the host; each worker has at least one. None: not limited.
        devices: the host's GPUs; None: not limited.

    >>> [share.devices for share in divide(2, devices=["0", "1", "2"])]
    [('0', '1'), ('2',)]
    >>> [share.threads for share in divide(2, threads=5)]
    [2, 2]
    """
    shares = []
    for slot in range(slots):
        mine = None
        if devices is not None:
            each, left = divmod(len(devices), slots)
            start = slot * each + min(slot, left)
            mine = tuple(devices[start : start + each + (slot < left)])
        # All get the same number of threads: a worker that takes another's place must compute the same bits.
        shares.append(Share(None if threads is None else max(1, threads // slots), mine))
    return tuple(shares)


@dataclass(frozen=True)
class WorkerProgram:
    """What a host's workers run.

    Attributes:
        command: the program and its arguments.
        environment: added to the agent's own environment.
        folder: where it starts; None: where the agent is.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str | None = None


def worker_environment(
    program: WorkerProgram, limits: Mapping[str, str], *, worker: str, host_address: str, descriptor: int
) -> dict[str, str]:
    """The whole environment of a worker that the calling process starts.

    Args:
        limits: that hold it to its share of the host.
        descriptor: the worker's end of its link, a number of this process and of the worker.
    """
    name, value = TENSORFLOW_SHARES_PORTS
    return {
        **os.environ,
        # A worker may be killed at any moment: what it has printed must be in its log by then, and so must the stacks
        # of a crash.
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        name: value,
        **limits,
        **program.environment,
        LINK_DESCRIPTOR: str(descriptor),
        AGENT_PID: str(os.getpid()),
        WORKER_NAME: worker,
        HOST_ADDRESS: host_address,
    }


def python_program(*arguments: str, environment: Mapping[str, str] | None = None) -> WorkerProgram:
    """A program that the interpreter of this process runs."""
    return WorkerProgram((sys.executable, *arguments), environment or {})


def on_slice(program: WorkerProgram, name: str | None) -> WorkerProgram:
    """The same program on the first host of a slice of several; None: on a host with all the chips of its slice."""
    if name is None:
        return program
    return replace(program, environment={**program.environment, TPU_SLICE: name})
