"""Keeps as many service workers as a run wants: starts them, replaces those that die, and lists those that serve."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cluster.data_service.scaling import Scaling, Wait
from cluster.data_service.worker_list import WorkerList
from cluster.supervisor.settings import BackOff

_log = logging.getLogger(__name__)
_TURN_S = 0.5
# One that has served for so long had a good start: what ends it later is another story.
_GOOD_S = 30.0
_BACK_OFF = BackOff()


class Serves(NamedTuple):
    """A service worker answers from now on.

    Attributes:
        address: host and port.
    """

    worker: str
    address: str


class Ended(NamedTuple):
    """A service worker is gone.

    Attributes:
        reason: why, as a part of a sentence.
    """

    worker: str
    reason: str


class Starter(Protocol):
    """Where service workers run. Nothing here blocks for long; what comes of it is told as `Serves` and `Ended`."""

    def open(self, tell: Callable[[Serves | Ended], object]) -> None:
        """Gets ready; `tell` may be called from any thread."""
        ...

    def start(self, worker: str) -> None:
        """Starts a worker."""
        ...

    def end(self, worker: str) -> None:
        """Ends a worker at once."""
        ...

    def close(self) -> None:
        """Ends all workers and waits until they are gone."""
        ...


@dataclass
class _Kept:
    serves_since: float | None = None
    address: str = ""
    is_unwanted: bool = False


class Fleet:
    """The service workers of a run; a thread of its own looks after them.

    Args:
        starter: starts and ends them.
        workers: the list that training processes read.
        scaling: how many.
        waits: gives what has been measured since the last call; unused where the number is fixed.
        note: gets each event, its name and its fields, for the journal.
        announce: gets each sentence for the person.
        back_off: between failures that follow each other.
    """

    def __init__(
        self,
        starter: Starter,
        workers: WorkerList,
        scaling: Scaling,
        waits: Callable[[], Sequence[Wait]],
        note: Callable[..., object],
        announce: Callable[[str], object],
        back_off: BackOff = _BACK_OFF,
    ) -> None:
        self._starter, self._list, self._scaling, self._waits = starter, workers, scaling, waits
        self._note, self._announce, self._back_off = note, announce, back_off
        self._told: queue.SimpleQueue[Serves | Ended | None] = queue.SimpleQueue()
        self._kept: dict[str, _Kept] = {}
        self._num_started = self._num_failures = 0
        self._not_before = 0.0
        self._problem = ""
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begins; the workers follow."""
        self._write_list()
        self._starter.open(self._told.put)
        self._thread = threading.Thread(target=self._keep, name="data-service-fleet", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all workers and waits until they are gone."""
        if self._thread is None:
            return
        self._told.put(None)
        self._thread.join()
        self._starter.close()
        try:
            self._list.remove()
        except OSError as error:
            _log.warning("the list of the data service's workers stays: %s", error)

    def _keep(self) -> None:
        while True:
            try:
                told = self._told.get(timeout=_TURN_S)
                if told is None:
                    return
                self._take_in(told)
            except queue.Empty:
                pass
            try:
                self._look()
            except Exception as error:  # a Ray that does not answer: the workers that there are do not need it
                self._say_problem(f"a worker of the data service cannot be started: {error}")

    def _take_in(self, told: Serves | Ended) -> None:
        kept = self._kept.get(told.worker)
        if kept is None:
            return
        now = time.monotonic()
        if isinstance(told, Serves):
            kept.serves_since, kept.address = now, told.address
            self._num_failures, self._problem = 0, ""
            self._note("data_worker_started", worker=told.worker, address=told.address)
        else:
            del self._kept[told.worker]
            self._note("data_worker_ended", worker=told.worker, reason=told.reason)
            if not kept.is_unwanted:
                is_short = kept.serves_since is None or now - kept.serves_since < _GOOD_S
                self._num_failures = self._num_failures + 1 if is_short else 1
                self._not_before = now + self._back_off.delay_s(self._num_failures)
                self._say_problem(
                    f"worker {told.worker} of the data service has ended ({told.reason}): another one starts"
                )
        self._write_list()

    def _look(self) -> None:
        now = time.monotonic()
        ready = sum(kept.serves_since is not None and not kept.is_unwanted for kept in self._kept.values())
        if self._scaling.fewest < self._scaling.most:
            before = self._scaling
            self._scaling = before.after(now, ready, tuple(self._waits()))
            if self._scaling.wanted != before.wanted:
                self._say_size(before.wanted, [wait.share for wait in before.waits])
        alive = [name for name, kept in self._kept.items() if not kept.is_unwanted]
        for name in alive[self._scaling.wanted :]:
            self._kept[name].is_unwanted = True
            self._write_list()  # first, so that nobody asks it for more
            self._starter.end(name)
        for _ in range(self._scaling.wanted - len(alive) if now >= self._not_before else 0):
            self._num_started += 1
            name = f"data-{self._num_started}"
            self._kept[name] = _Kept()
            self._starter.start(name)

    def _say_size(self, before: int, waits: Sequence[float]) -> None:
        wanted, mean = self._scaling.wanted, sum(waits) / len(waits) if waits else 0.0
        self._note("data_service_scaled", workers=wanted, before=before, data_wait=mean)
        self._announce(
            f"data service: {before} -> {wanted} workers, because training waits {100 * mean:.1f}% of its time for data"
        )

    def _say_problem(self, problem: str) -> None:
        kind = problem.partition("(")[2] or problem
        if kind != self._problem:
            self._problem = kind
            self._announce(problem)

    def _write_list(self) -> None:
        serving = {name: kept.address for name, kept in self._kept.items() if kept.address and not kept.is_unwanted}
        try:
            self._list.write(serving)
        except OSError as error:
            _log.warning("the list of the data service's workers cannot be written: %s", error)
