"""The data service of a run: where its workers run, how many there are, and how training processes find them."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import typer

from cluster.data_service.client import BlockClient
from cluster.data_service.fleet import Fleet, Starter
from cluster.data_service.local_workers import LocalDataWorkers
from cluster.data_service.scaling import Scaling, Wait
from cluster.data_service.worker_list import WorkerList
from cluster.worker_environment import python_program
from launch.data_worker import open_server
from launch.run_config import RunConfig
from launch.service_key import key_of, new_service_key
from trainer.observe.journal import Journal, next_generation
from trainer.observe.tail import Tail
from trainer.run_folder import RunFolder

# A pool of one thread could wait for itself: decoding an image is a pipeline within the pipeline.
_FEWEST_THREADS = 2


class DataService:
    """Made by the launcher of a run that has one; it is opened when Ray, if there is any, can be asked for actors.

    Args:
        config: of the run, with `data.service`.
        folder: of the run; the caller holds its lock.
        note: gets each event, its name and its fields, for the journal.
        announce: gets each sentence for the person.

    Attributes:
        environment: that training processes are started with.
    """

    def __init__(
        self, config: RunConfig, folder: RunFolder, note: Callable[..., Any], announce: Callable[[str], object]
    ) -> None:
        service = config.data.service
        assert service is not None, "the caller has looked"
        self.environment = new_service_key()
        self._list = WorkerList(folder.data_service)
        waits = _Waits(folder)
        scaling = Scaling.between(service.fewest, service.most)
        starter = self._starter(config, folder, service.cpus_per_worker, service.most)
        self._fleet = Fleet(starter, self._list, scaling, waits.new, note, announce)

    def open(self) -> None:
        """Starts the workers, which takes them some seconds; nobody waits."""
        self._fleet.open()

    def close(self) -> None:
        """Ends the workers."""
        self._fleet.close()

    def client(self) -> BlockClient:
        """For a training in this process."""
        return BlockClient(self._list, key_of(self.environment))

    def _starter(self, config: RunConfig, folder: RunFolder, cpus: float, most: int) -> Starter:
        if config.cluster.kind == "ray":
            from cluster.data_service.ray_workers import RayDataWorkers

            run = str(folder.path.absolute())
            return RayDataWorkers(partial(open_server, run, os.getcwd(), key_of(self.environment)), cpus)
        program = python_program("-m", "launch.data_worker", str(folder.path), environment=self.environment)
        threads = max(_FEWEST_THREADS, (os.cpu_count() or 1) // most)
        return LocalDataWorkers(program, folder.logs / "data_service", threads)


@contextlib.contextmanager
def service_beside(config: RunConfig, folder: RunFolder) -> Iterator[BlockClient | None]:
    """The data service of a training in this process, as long as it goes on; None where the config asks for none."""
    if config.data.service is None:
        yield None
        return
    journal = Journal(folder.journal, next_generation(folder.journal))
    service = DataService(config, folder, journal.write, typer.echo)
    client = service.client()
    service.open()
    try:
        yield client
    finally:
        client.close()
        service.close()
        journal.close()


def client_of(folder: RunFolder, key: bytes | None) -> BlockClient | None:
    """For a training in a process that a launcher has started.

    Args:
        folder: of the run.
        key: that the process was given; None: the run has no data service.
    """
    return None if key is None else BlockClient(WorkerList(folder.data_service), key)


class _Waits:
    """What the chief has measured of the waiting for data since the last look."""

    def __init__(self, folder: RunFolder) -> None:
        self._lines = Tail(folder.metrics)
        self._lines.read()  # those of an earlier launch say nothing of this service

    def new(self) -> list[Wait]:
        now = time.monotonic()
        return [Wait(now, line["data_wait"]) for line in self._lines.read() if "data_wait" in line]
