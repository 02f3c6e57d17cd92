"""Events that come ten thousand times a second must not cost more the more hosts there are."""

import time

from cluster.supervisor.events import Event, Heartbeat, HostJoined, Progressed, Ticked, WorkerReady
from cluster.supervisor.settings import Settings, Sizes
from cluster.supervisor.states import Running
from cluster.supervisor.supervisor import Supervisor


def running_on(num_hosts: int) -> Supervisor:
    supervisor = Supervisor(Settings(sizes=Sizes(min=num_hosts, max=num_hosts), standbys=0))
    for number in range(num_hosts):
        supervisor.handle(HostJoined(0.0, f"h{number}", 1))
    supervisor.handle(Ticked(0.0))
    for worker, host in supervisor.workers.items():
        supervisor.handle(WorkerReady(1.0, worker, host, f"{host}:1"))
    assert isinstance(supervisor.state, Running)
    return supervisor


def seconds_for(supervisor: Supervisor, events: list[Event]) -> float:
    start = time.process_time()
    for event in events:
        supervisor.handle(event)
    return time.process_time() - start


def test_heartbeats_and_reports_of_ten_thousand_hosts() -> None:
    supervisor = running_on(10_000)
    workers = list(supervisor.workers)
    heartbeats: list[Event] = [Heartbeat(2.0, worker) for worker in workers]
    reports: list[Event] = [Progressed(3.0, worker, 1, 10, "step") for worker in workers]
    # A scan over the hosts for each would take minutes.
    assert seconds_for(supervisor, heartbeats) < 1.0
    assert seconds_for(supervisor, reports) < 1.0
    assert seconds_for(supervisor, [Ticked(4.0)]) < 1.0
