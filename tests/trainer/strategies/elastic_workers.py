"""Elastic workers as threads of one process: real sessions, real groups, whole trainings; deaths by an exception.

What is missing of a real run is its supervisor: whoever is left forms the next group by itself.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.assignment import Member
from cluster.process_group import Endpoint, GroupAborted
from tests.trainer.sessions import small_config
from trainer.checkpoint.store import CheckpointStore
from trainer.group import Group
from trainer.membership import Joined
from trainer.observe.metrics_log import read_metrics
from trainer.run_folder import RunFolder
from trainer.session import Session, build_session
from trainer.stop_request import StopRequest
from trainer.strategies.choice import choose_strategy
from trainer.training import run_training

_PATIENCE_S = 120.0


class Died(Exception):
    """The end of a worker, as a test wants it."""


class Accusation(NamedTuple):
    """What a member said of others, whom it named by rank."""

    accuser: str
    suspects: tuple[str, ...]
    step: int
    is_proven: bool


class Worker:
    """One worker, with the membership that its session asks.

    Attributes:
        dies_at: Steps after which it ends; None for one that does not.
        error: What ended it otherwise.
    """

    broken: type[Exception] = GroupAborted
    prepare: Callable[[Joined, bool], bool] | None = None

    def __init__(self, workers: Workers, name: str, host: str) -> None:
        self.name, self.host, self.dies_at = name, host, None
        self.error: BaseException | None = None
        self.endpoint = Endpoint(name, "127.0.0.1", b"key", None)
        self.orders: queue.Queue[tuple[int, tuple[Member, ...]] | None] = queue.Queue()
        self._workers, self._members = workers, ()
        self.session: Session = build_session(
            workers.config, choice=choose_strategy(workers.config, 2, 0), membership=self
        )
        self.session.warm_up(2)
        self.thread = threading.Thread(target=self._train, name=name, daemon=True)

    def join(self) -> Joined:
        while True:
            order = self.orders.get(timeout=_PATIENCE_S)
            if order is None:
                raise Died
            generation, self._members = order
            rank = next(member.rank for member in self._members if member.worker == self.name)
            try:
                collective = self.endpoint.join(self._members, rank, generation, _PATIENCE_S)
            except GroupAborted:
                continue
            group = Group(rank, tuple(member.address for member in self._members), generation)
            return Joined(group, tuple(member.host for member in self._members), collective, lambda: None, None)

    def leave(self) -> None:
        pass

    def accuse(self, suspects: Sequence[int], step: int, is_proven: bool, what: str) -> None:
        names = tuple(self._members[rank].worker for rank in suspects)
        self._workers.accused(Accusation(self.name, names, step, is_proven))

    def _train(self) -> None:
        try:
            run_training(
                self._workers.config,
                self._workers.folder,
                StopRequest(),
                session=self.session,
                on_progress=self._progress,
            )
        except Died:
            self._workers.end([self.name])
        except BaseException as error:
            self.error = error
            self._workers.end([self.name])
        finally:
            self.endpoint.close()

    def _progress(self, step: int, phase: str) -> None:
        if self.dies_at is not None and step >= self.dies_at and phase == "step":
            raise Died


class Workers:
    """A run in `folder`, with one worker for each host that is given.

    Attributes:
        accusations: In the order in which they came.
        sizes: Of the groups so far.
        dies_together: Names of workers that all end when one of them does.
    """

    def __init__(self, folder: Path, hosts: Sequence[str], **change: Any) -> None:
        change = {"strategy": {"name": "elastic"}, **change}
        change["train"] = {"virtual_workers": 4, "steps_per_loop": 1, "log_every": 1, **change.get("train", {})}
        change["observe"] = {"tensorboard": False}
        self.config = small_config(**change)
        folder.mkdir(exist_ok=True)
        self.folder = RunFolder(folder)
        self.accusations: list[Accusation] = []
        self.sizes: list[int] = []
        self.dies_together: Sequence[str] = ()
        self._lock = threading.Lock()
        self.workers = {f"w{i}": Worker(self, f"w{i}", host) for i, host in enumerate(hosts)}
        self._alive = list(self.workers)
        self._generation = 0

    def train(self) -> Workers:
        """All of the training, until whoever is left has ended."""
        with self._lock:
            self._form()
        for worker in self.workers.values():
            worker.thread.start()
        for worker in self.workers.values():
            worker.thread.join(_PATIENCE_S)
            assert not worker.thread.is_alive(), f"{worker.name} did not end"
        for worker in self.workers.values():
            if worker.error is not None:
                raise worker.error
        return self

    def end(self, names: Sequence[str]) -> None:
        """These workers end now, or have ended; the others form the next group."""
        if set(names) & set(self.dies_together):
            names = [*names, *self.dies_together]
        with self._lock:
            ending = [name for name in dict.fromkeys(names) if name in self._alive]
            self._alive = [name for name in self._alive if name not in ending]
            for name in ending:
                self.workers[name].orders.put(None)
                self.workers[name].endpoint.abort(self._generation)
            if ending and self._alive:
                self._form()

    def accused(self, accusation: Accusation) -> None:
        """As a supervisor would, ends the suspects."""
        self.accusations.append(accusation)
        self.end(accusation.suspects)

    def _form(self) -> None:
        self._generation += 1
        self.sizes.append(len(self._alive))
        members = tuple(
            Member(name, self.workers[name].host, rank, self.workers[name].endpoint.address)
            for rank, name in enumerate(self._alive)
        )
        for name in self._alive:
            self.workers[name].orders.put((self._generation, members))
            self.workers[name].endpoint.abort(self._generation - 1)

    @property
    def last_state(self) -> Mapping[str, np.ndarray]:
        """All variables at the end, from the checkpoint."""
        checkpoint = CheckpointStore(self.folder.checkpoints).newest_verified()
        assert checkpoint is not None and checkpoint.step == self.config.train.steps
        return checkpoint.arrays

    @property
    def digests(self) -> dict[str, bytes]:
        """The same as bytes, to be compared to the bit."""
        return {name: values.tobytes() for name, values in self.last_state.items()}


def break_down(worker: Worker, step: int) -> None:
    """From this step on, what this worker computes has one wrong bit."""
    loop = worker.session.strategy.train_loop(worker.session.step, worker.session.state)
    call = loop._call

    def wrong(block, sums, empty_window, index, part, place=None):
        finite, tensors = call(block, sums, empty_window, index, part, place)
        if index is not None and worker.session.state.step >= step:
            values = tensors[0].numpy().copy()
            values[3:4].view("int32")[:] ^= 1
            tensors = [values, *tensors[1:]]
        return finite, tensors

    loop._call = wrong


def curve(workers: Workers) -> list[dict[str, Any]]:
    """What a training has recorded, without what no two trainings have alike."""
    changing = {"time", "examples_per_s", "data_wait"}
    return [{k: v for k, v in line.items() if k not in changing} for line in read_metrics(workers.folder.metrics)]
