"""Thins out what workers say all the time, so that a long run's journal stays small.

What is dropped never reaches the supervisor, so the journal of what does reach it is complete.
"""

from dataclasses import replace

from cluster.supervisor.events import Event, Heartbeat, Progressed, SnapshotTaken, WorkerExited


class Coalescing:
    """Holds progress, heartbeats and snapshots back until the next tick, and of each worker or host only the newest.

    A change of phase or generation is not held back. Before anything else, the supervisor learns all that is held: when
    a worker has died, it counts how far the others were.

    Times never go backwards in what is passed on.
    """

    def __init__(self) -> None:
        self._progress: dict[str, Progressed] = {}
        self._heartbeats: dict[str, Heartbeat] = {}
        self._snapshots: dict[str, SnapshotTaken] = {}
        self._places: dict[str, tuple[int, str]] = {}
        self._last_at = float("-inf")

    def add(self, event: Event) -> list[Event]:
        """Takes the next event.

        Returns:
            What the supervisor shall handle now, in this order.
        """
        match event:
            case Heartbeat():
                self._heartbeats[event.worker] = event
                return []
            case SnapshotTaken():
                self._snapshots[event.host] = event
                return []
            case Progressed():
                place = (event.generation, event.phase)
                if self._places.get(event.worker) == place:
                    self._progress[event.worker] = event
                    return []
                self._places[event.worker] = place
            case WorkerExited():
                self._places.pop(event.worker, None)
        return [*self.flush(), self._in_order(event)]

    def flush(self) -> list[Event]:
        """All that is held, oldest first."""
        # Progress shows that a worker lives as well: of ten thousand workers the journal would hold twice as much.
        heartbeats = [
            event
            for worker, event in self._heartbeats.items()
            if worker not in self._progress or event.arrived is not None
        ]
        held = [*self._progress.values(), *heartbeats, *self._snapshots.values()]
        held.sort(key=lambda event: event.at)
        for kind in (self._progress, self._heartbeats, self._snapshots):
            kind.clear()
        return [self._in_order(event) for event in held]

    def _in_order(self, event: Event) -> Event:
        self._last_at = max(self._last_at, event.at)
        return event if event.at == self._last_at else replace(event, at=self._last_at)
