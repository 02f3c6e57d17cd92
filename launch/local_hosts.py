"""The hosts of `cluster.kind: local`: this machine, or several that it plays."""

import os
from collections.abc import Callable
from pathlib import Path

from cluster.emulated_hosts import EmulatedHosts
from cluster.local import LocalHost, LocalHosts
from cluster.runtime import Hosts
from cluster.worker_environment import WorkerProgram, divide
from cluster.worker_output import Sink
from launch.host_memory import HostMemory
from launch.run_config import RunConfig
from trainer.run_folder import RunFolder


def local_hosts(
    config: RunConfig,
    folder: RunFolder,
    program: WorkerProgram,
    memory: HostMemory,
    on_output: Sink,
    on_started: Callable[[str, int], object],
) -> Hosts:
    """The hosts that a config asks for.

    Args:
        config: of the run.
        folder: of the run.
        program: what workers run.
        memory: where the hosts keep snapshots.
        on_output: gets the lines that workers print.
        on_started: gets the name and the pid of each host that this machine plays, whenever one begins.
    """
    num_hosts = config.cluster.local.hosts
    slots = -(-config.cluster.max_workers // num_hosts)
    shares = divide(slots * num_hosts, _num_cores(), _devices())
    if num_hosts == 1:
        return LocalHosts([LocalHost("localhost", shares)], program, folder.logs, on_output=on_output)

    return EmulatedHosts(
        [LocalHost(f"host-{number}", shares[number - 1 :: num_hosts]) for number in range(1, num_hosts + 1)],
        program,
        folder.logs,
        notice_s=config.cluster.notice,
        return_s=config.cluster.local.return_after,
        on_output=on_output,
        on_started=on_started,
        on_gone=memory.lose,
    )


def part_threads(config: RunConfig) -> dict[str, str]:
    """How many threads the kernels of an elastic worker on this machine use, as its environment.

    Their number may change the last bits of a sum. So it follows from the number of parts, all of which are computed
    here whatever the number of workers.
    """
    if not config.is_elastic:
        return {}
    threads = str(max(1, _num_cores() // config.num_parts))
    return {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads}


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str] | None:
    """The GPUs that the workers may share out, by number; None where there are none to be seen."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    numbers = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(numbers, key=int) or None
