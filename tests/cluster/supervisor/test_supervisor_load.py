"""Events that come ten thousand times a second must not cost more the more hosts there are."""

import time

from cluster.supervisor.events import (
    Event,
    Heartbeat,
    HostDraining,
    HostJoined,
    HostLost,
    Progressed,
    Ticked,
    WorkerExited,
    WorkerReady,
)
from cluster.supervisor.settings import Settings, Sizes
from cluster.supervisor.states import Gathering, Running
from cluster.supervisor.supervisor import Supervisor


def running_on(num_hosts: int, standbys: int = 0) -> Supervisor:
    supervisor = Supervisor(Settings(sizes=Sizes(min=num_hosts, max=num_hosts), standbys=standbys))
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


def test_standbys_get_ready_while_a_lost_host_is_waited_for() -> None:
    supervisor = running_on(10_000, standbys=10_000)
    assert len(supervisor.workers) == 20_000
    for worker, host in list(supervisor.workers.items()):
        supervisor.handle(WorkerReady(2.0, worker, host, f"{host}:1"))
    before = supervisor.workers
    supervisor.handle(HostLost(3.0, "h7", "it does not answer"))
    for number in range(1, 10_001):
        supervisor.handle(WorkerExited(3.0, f"w{number}", f"h{number - 1}", None, 9, None))
    assert isinstance(supervisor.state, Gathering), "one seat is missing"
    supervisor.handle(Ticked(3.0))
    fresh = {worker: host for worker, host in supervisor.workers.items() if worker not in before}
    assert len(fresh) > 9_000
    events: list[Event] = [WorkerReady(4.0, worker, host, f"{host}:1") for worker, host in fresh.items()]
    assert seconds_for(supervisor, events) < 1.0


def test_a_tenth_of_the_hosts_is_given_notice_at_once() -> None:
    supervisor = running_on(10_000)
    assert seconds_for(supervisor, [HostDraining(2.0, f"h{number}", 30.0) for number in range(1_000)]) < 1.0
