"""What the supervisor costs while nothing but steps happens, measured on this machine at a given size."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cluster.event_coalescing import Coalescing
from cluster.supervisor.events import Event, Heartbeat, HostJoined, Progressed, SnapshotTaken, Ticked, WorkerReady
from cluster.supervisor.records import to_record
from cluster.supervisor.settings import Settings, Sizes
from cluster.supervisor.supervisor import Supervisor


@dataclass(frozen=True)
class SupervisorLoad:
    """Costs on one core.

    Attributes:
        workers: how many there are.
        heartbeat_s, progress_s, snapshot_s: processor seconds of one event in the supervisor.
        tick_s: of one tick.
        coalesce_s: of one event on its way to the next tick.
        journal_s, journal_bytes: of one event's line in the journal.
    """

    workers: int
    heartbeat_s: float
    progress_s: float
    snapshot_s: float
    tick_s: float
    coalesce_s: float
    journal_s: float
    journal_bytes: float

    def cpu(self, heartbeats_per_s: float, reports_per_s: float, ticks_per_s: float) -> float:
        """The share of a core.

        Args:
            heartbeats_per_s: of one worker.
            reports_per_s: of its progress.
            ticks_per_s: of the runtime; an event of each kind passes once a tick and worker at most.
        """
        passed_s = self.journal_s
        heartbeats = min(heartbeats_per_s, ticks_per_s) * (self.heartbeat_s + passed_s)
        reports = min(reports_per_s, ticks_per_s) * (self.progress_s + passed_s)
        arriving = (heartbeats_per_s + reports_per_s) * self.coalesce_s
        return self.workers * (heartbeats + reports + arriving) + ticks_per_s * self.tick_s

    def journal_bytes_per_s(self, heartbeats_per_s: float, reports_per_s: float, ticks_per_s: float) -> float:
        """Bytes of journal, with the same arguments."""
        passed = min(heartbeats_per_s, ticks_per_s) + min(reports_per_s, ticks_per_s)
        return self.workers * passed * self.journal_bytes


def training_supervisor(hosts: int, workers_per_host: int = 1) -> Supervisor:
    """A supervisor whose first generation trains on all hosts."""
    size = hosts * workers_per_host
    supervisor = Supervisor(Settings(sizes=Sizes(min=size, max=size), standbys=0))
    for number in range(hosts):
        supervisor.handle(HostJoined(0.0, f"h{number}", workers_per_host))
    supervisor.handle(Ticked(0.0))
    workers = supervisor.workers
    for worker, host in workers.items():
        supervisor.handle(WorkerReady(1.0, worker, host, f"{host}:4711"))
    assert supervisor.generation == 1, "all workers are ready"
    for worker in workers:
        supervisor.handle(Progressed(2.0, worker, 1, 0, "step"))
    return supervisor


def measure_load(hosts: int, workers_per_host: int = 1, rounds: int = 3) -> SupervisorLoad:
    """Measures each cost some times and takes the median-like best half: the machine's other work is not ours."""
    supervisor = training_supervisor(hosts, workers_per_host)
    workers = list(supervisor.workers)
    at = 3.0
    costs: dict[str, list[float]] = {}
    length = 0.0
    for _ in range(rounds):
        at += 1.0
        heartbeats: list[Event] = [Heartbeat(at, worker) for worker in workers]
        reports: list[Event] = [Progressed(at, worker, 1, int(10 * at), "step") for worker in workers]
        snapshots: list[Event] = [SnapshotTaken(at, f"h{number}", 1, int(10 * at)) for number in range(hosts)]
        for name, events in (("heartbeat_s", heartbeats), ("progress_s", reports), ("snapshot_s", snapshots)):
            costs.setdefault(name, []).append(_seconds(supervisor.handle, events) / len(events))
        costs.setdefault("tick_s", []).append(_seconds(supervisor.handle, [Ticked(at)]))
        coalescing = Coalescing()
        costs.setdefault("coalesce_s", []).append(_seconds(coalescing.add, heartbeats) / len(workers))
        lines: list[str] = []
        took_s = _seconds(lambda event, out=lines: out.append(json.dumps(to_record(event))), heartbeats + reports)
        costs.setdefault("journal_s", []).append(took_s / len(lines))
        # The journal adds its time, its generation and the end of the line.
        length = sum(map(len, lines)) / len(lines) + len('"time": 1700000000.123456, "generation": 1, \n')
    best = {name: sorted(values)[len(values) // 2] for name, values in costs.items()}
    return SupervisorLoad(workers=len(workers), journal_bytes=length, **best)


def _seconds(handle: Callable[[Event], object], events: Iterable[Event]) -> float:
    began = time.process_time()
    for event in events:
        handle(event)
    return time.process_time() - began
