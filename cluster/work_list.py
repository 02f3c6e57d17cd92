"""A list of orders that a crew of workers carries out: what a worker leaves undone when it dies, another one does.

An order may be begun more than once, and must be one that this does no harm to.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class WorkError(Exception):
    """An order cannot be carried out. The message is one sentence for the user."""


@dataclass(frozen=True)
class Finished:
    """A worker has done what it was given."""

    worker: Hashable
    result: Any


@dataclass(frozen=True)
class Failed:
    """A worker could not do what it was given, and lives."""

    worker: Hashable
    error: Exception


@dataclass(frozen=True)
class Died:
    """A worker is gone.

    Attributes:
        how: "it was killed by signal 9", for messages.
    """

    worker: Hashable
    how: str


Outcome = Finished | Failed | Died


class Crew(Protocol):
    """Workers, wherever they are."""

    def hire(self) -> Hashable:
        """Starts a worker, and names it; it may be given an order at once."""
        ...

    def give(self, worker: Hashable, order: Any) -> None:
        """Gives an order to a worker that has none."""
        ...

    def wait(self) -> list[Outcome]:
        """Waits until something has happened, or for a moment."""
        ...


@dataclass
class WorkList:
    """What is to do, who is at it, and what became of it.

    Args:
        crew: Who does it.
        most_workers: At once.
        most_deaths: Of workers at one order: after as many it is given up, since it is likely the cause.
        on_death: Gets a sentence about each worker that died.

    Attributes:
        deaths: Workers that died, over all calls.
    """

    crew: Crew
    most_workers: int
    most_deaths: int = 4
    on_death: Callable[[str], object] = lambda sentence: None
    deaths: int = 0
    _idle: list[Hashable] = field(default_factory=list)
    _workers: set[Hashable] = field(default_factory=set)

    def carry_out(self, orders: Mapping[str, Any], on_done: Callable[[str, Any], object]) -> None:
        """Has all orders done, in any order.

        Args:
            orders: By name, for messages.
            on_done: Gets the name of each and its result. What it raises ends the call.

        Raises:
            WorkError: A worker died at the same order too often.
            Exception: What a worker raised.
        """
        waiting = deque(orders)
        at_work: dict[Hashable, str] = {}
        deaths: dict[str, int] = {}
        while waiting or at_work:
            while waiting and (worker := self._free_worker()) is not None:
                at_work[worker] = waiting.popleft()
                self.crew.give(worker, orders[at_work[worker]])
            for outcome in self.crew.wait():
                name = at_work.pop(outcome.worker, None)
                if isinstance(outcome, Died):
                    self._lose(outcome.worker)
                    if name is None:
                        continue
                    deaths[name] = deaths.get(name, 0) + 1
                    if deaths[name] >= self.most_deaths:
                        raise WorkError(
                            f"{name}: {self.most_deaths} workers died at it, the last one like this: {outcome.how}: "
                            "give the command again with fewer workers if memory is short, else correct the file"
                        )
                    self.on_death(f"a worker died at {name} ({outcome.how}): another one does it")
                    waiting.appendleft(name)
                    continue
                self._idle.append(outcome.worker)
                if isinstance(outcome, Failed):
                    raise outcome.error
                assert name is not None, "a worker answers to an order"
                on_done(name, outcome.result)

    def _free_worker(self) -> Hashable | None:
        if self._idle:
            return self._idle.pop()
        if len(self._workers) >= self.most_workers:
            return None
        worker = self.crew.hire()
        self._workers.add(worker)
        return worker

    def _lose(self, worker: Hashable) -> None:
        self.deaths += 1
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
