"""The loop around the supervisor: what happened goes in, what is to be done comes out and is carried out.

It knows neither where the hosts are nor how a decision is made.
"""

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from cluster.assignment import Assignment
from cluster.event_coalescing import Coalescing
from cluster.supervisor.commands import (
    Announce,
    Command,
    DumpStacks,
    Finish,
    Form,
    Kill,
    ReleaseHost,
    StartWorker,
    Stop,
)
from cluster.supervisor.events import Event, Heartbeat, Progressed, SnapshotTaken, StopRequested, Ticked

_TICK_S = 0.05
# Nothing but progress for so long, and the clock is told this many times less often: most of a run is like that, and
# the journal holds every tick.
_QUIET_AFTER_S = 10.0
_QUIET_TICKS = 40


class Decider(Protocol):
    """What decides: the supervisor."""

    def handle(self, event: Event) -> list[Command]:
        """What is to be done about an event."""
        ...


class Hosts(Protocol):
    """Where workers run. Orders for a host or worker that is gone do nothing: its event is under way."""

    def open(self, on_event: Callable[[Event], object]) -> None:
        """Begins to report, from any thread, first that the hosts have joined."""
        ...

    def start(self, worker: str, host: str) -> None:
        """Starts a worker."""
        ...

    def form(self, worker: str, assignment: Assignment) -> None:
        """Hands a worker its part in a generation."""
        ...

    def stop(self, worker: str, reason: str) -> None:
        """Asks a worker to save its state and end."""
        ...

    def kill(self, worker: str, reason: str) -> None:
        """Ends a worker at once."""
        ...

    def dump_stacks(self, worker: str) -> None:
        """Has a worker write its stacks to its log."""
        ...

    def profile(self, worker: str, steps: int) -> None:
        """Has a worker profile its next steps."""
        ...

    def release(self, host: str) -> None:
        """Gives a host back."""
        ...

    def close(self) -> None:
        """Ends all workers and waits until they are gone."""
        ...


class Beside(Protocol):
    """What runs beside the workers and needs no decisions."""

    def open(self) -> None:
        """Begins, without waiting for anything."""
        ...

    def close(self) -> None:
        """Ends, and waits until it has."""
        ...


class Runtime:
    """Runs a supervisor until it finishes.

    Args:
        supervisor: decides.
        hosts: carry out.
        journal: gets every event that the supervisor handles, and after each the commands that it gave, before these
            are carried out. To replay a run is to handle the same events again.
        announce: gets each sentence for the person.
        clock: monotonic seconds, never before the last of a journal that is taken over. Events of other machines are
            stamped with it when they arrive.
        tick_s: seconds between two looks at the clock while something is going on.
        beside: is opened once the hosts are there, and closed before them.
    """

    def __init__(
        self,
        supervisor: Decider,
        hosts: Hosts,
        journal: Callable[[Event | Command], object],
        announce: Callable[[str], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        tick_s: float = _TICK_S,
        beside: Beside | None = None,
    ) -> None:
        self._supervisor, self._hosts = supervisor, hosts
        self._journal, self._announce = journal, announce
        self._clock, self._tick_s, self._beside = clock, tick_s, beside
        self._arrived: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._coalescing = Coalescing()

    def put(self, event: Event) -> None:
        """Takes an event, from any thread or signal handler."""
        self._arrived.put(replace(event, at=self._clock()))

    def request_stop(self, reason: str) -> None:
        """Asks the run to save its state and end, from any thread or signal handler."""
        self.put(StopRequested(0.0, reason))

    def run(self, begin_with: Sequence[Command] = (), known: Sequence[Event] = ()) -> Finish:
        """Opens the hosts, decides until the run is over, and closes the hosts whatever happens.

        Args:
            begin_with: what a supervisor that was taken over had decided and not recorded.
            known: what has happened on the hosts before, told once they have joined, at that time.
        """
        try:
            self._hosts.open(self.put)
            if self._beside is not None:
                self._beside.open()
            for event in known:
                self.put(event)
            finish = self._carry_out(begin_with)
            return finish or next(finish for finish in map(self._handle, self._events()) if finish is not None)
        finally:
            try:
                if self._beside is not None:
                    self._beside.close()
            finally:
                self._hosts.close()

    def _events(self) -> Iterator[Event]:
        """What the supervisor handles, without end. Events and the clock take turns: neither keeps the other away."""
        eventful_at = self._clock()
        tick_at = eventful_at + self._tick_s
        while True:
            now = self._clock()
            if now >= tick_at:
                is_quiet = now - eventful_at > _QUIET_AFTER_S
                tick_at = now + self._tick_s * (_QUIET_TICKS if is_quiet else 1)
                yield from self._coalescing.add(Ticked(now))
            try:
                event = self._arrived.get(timeout=max(0.0, tick_at - self._clock()))
            except queue.Empty:
                continue
            if not isinstance(event, Progressed | Heartbeat | SnapshotTaken):
                eventful_at = event.at
                tick_at = min(tick_at, event.at + self._tick_s)
            yield from self._coalescing.add(event)

    def _handle(self, event: Event) -> Finish | None:
        self._journal(event)
        return self._carry_out(self._supervisor.handle(event))

    def _carry_out(self, commands: Sequence[Command]) -> Finish | None:
        for command in commands:
            self._journal(command)
        for command in commands:
            if isinstance(command, Finish):
                return command
            self._give(command)
        return None

    def _give(self, command: Command) -> None:
        match command:
            case StartWorker(worker, host):
                self._hosts.start(worker, host)
            case Form(worker, assignment):
                self._hosts.form(worker, assignment)
            case Stop(worker, reason):
                self._hosts.stop(worker, reason)
            case Kill(worker, reason):
                self._hosts.kill(worker, reason)
            case DumpStacks(worker):
                self._hosts.dump_stacks(worker)
            case ReleaseHost(host):
                self._hosts.release(host)
            case Announce(text):
                self._announce(text)
