"""The hosts that `cluster.kind` asks for."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cluster.ray_cluster import check_installed
from cluster.runtime import Hosts
from cluster.worker_environment import WorkerProgram, python_program
from cluster.worker_output import Sink
from launch.group_key import new_group_key
from launch.host_memory import HOST, HostMemory
from launch.local_hosts import local_hosts, part_threads
from launch.run_config import RunConfig
from launch.tpu_run import check_wishes, tpu_hosts
from trainer.run_folder import RunFolder
from trainer.strategies.horovod_installation import check_horovod


def check_backend(config: RunConfig) -> None:
    """Makes sure that what cluster and strategy need is installed. Call it before anything is written or started.

    Raises:
        HorovodNotUsable: Horovod is asked for, and it is not installed or was built for another TensorFlow.
        RayClusterError: Ray is asked for and not installed.
        ValueError: a slice is asked for that cannot be, or the client of Cloud TPU is not installed.
    """
    if config.cluster.kind == "ray":
        check_installed()
    if config.cluster.kind == "tpu":
        check_wishes(config)
    if config.strategy.name == "horovod":
        check_horovod()


def hosts_of(
    config: RunConfig,
    folder: RunFolder,
    memory: HostMemory,
    on_output: Sink,
    on_started: Callable[[str, int], object],
    announce: Callable[[str], object],
    may_restore: Callable[[int, int], bool],
    environment: Mapping[str, str],
) -> Hosts:
    """The hosts of a run, not opened yet.

    Args:
        config: of the run.
        folder: of the run.
        memory: of the run on this machine.
        on_output: gets the lines that workers print, and must not block.
        on_started: gets the name and the pid of each host that this machine plays, whenever it joins.
        announce: gets each sentence for the person.
        may_restore: whether the run may go on from a snapshot of this generation and step that is found in a host's
            memory.
        environment: that workers are started with besides.
    """
    if config.cluster.kind == "tpu":
        return tpu_hosts(config, folder, new_group_key(), on_output, announce)
    if config.cluster.kind != "ray":
        program = python_program(
            "-m",
            "launch.worker",
            str(folder.path),
            environment={**new_group_key(), **part_threads(config), **environment},
        )
        return local_hosts(config, folder, program, memory, on_output, on_started)
    from cluster.ray_hosts import RayHosts

    run = folder.path.absolute()
    return RayHosts(
        config.cluster.ray,
        (config.cluster.min_workers, config.cluster.max_workers),
        run,
        folder.logs,
        program=partial(program_on, str(run), os.getcwd(), {**new_group_key(), **environment}),
        storage=partial(HostMemory, run),
        notice_s=config.cluster.notice,
        may_restore=may_restore,
        on_output=on_output,
        announce=announce,
    )


def program_on(run: str, folder: str, key: Mapping[str, str], host: str) -> WorkerProgram:
    """What workers run on a host of a cluster; called there, because the interpreter may be elsewhere.

    Args:
        run: the run folder.
        folder: where the launcher was started, which paths in the config may count from.
        key: what the workers of all hosts share, as their environment.
        host: what the host is called.
    """
    program = python_program("-m", "launch.worker", run, environment={HOST: host, **key})
    return WorkerProgram(program.command, program.environment, folder if Path(folder).is_dir() else None)
