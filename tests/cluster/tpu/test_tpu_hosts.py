"""A slice as the host of a run: notice of maintenance, and a slice that is given back for another."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import tpu_hosts
from cluster.remote_agent import RemoteAgent
from cluster.supervisor.events import Event, HostDraining, HostJoined, HostLost
from cluster.tpu.patience import WallClock
from cluster.tpu.provider import SliceRequest
from cluster.tpu_hosts import TpuHosts
from cluster.worker_environment import Share, WorkerProgram
from tests.cluster.tpu.emulated_cloud import EmulatedCloud, Zone
from tests.cluster.tpu.emulator import TOKEN, Emulator

pytest.importorskip("cloud_tpu_client", reason="cloud-tpu-client is an extra")


@pytest.fixture
def cloud(monkeypatch) -> Iterator[EmulatedCloud]:
    emulator = Emulator(WallClock(), {"zone-a": Zone(queue_s=0.0, create_s=0.0, delete_s=0.0)})
    monkeypatch.setenv("TPU_API_DISCOVERY_URL", emulator.discovery_url)
    monkeypatch.setenv("NO_GCE_CHECK", "True")
    monkeypatch.setattr(tpu_hosts, "_LOOK_S", 0.05)
    monkeypatch.setattr(tpu_hosts, "_HEALTH_S", 0.05)
    yield emulator.cloud
    emulator.close()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_maintenance_is_notice_and_an_unwanted_slice_is_replaced(cloud, tmp_path: Path):
    from google.oauth2.credentials import Credentials

    from cluster.tpu.cloud_api import CloudTpuApi

    events: list[Event] = []
    doors: list[tuple[str, str]] = []
    hosts = TpuHosts(
        CloudTpuApi("p", Credentials(TOKEN), timeout_s=10.0),
        [SliceRequest("one", "zone-a", "v5litepod-4", "tpu-ubuntu2204-base")],
        "one",
        listen="127.0.0.1",
        publish=lambda address, secret: doors.append((address, secret)),
        conceal=doors.clear,
        max_run_s=3600.0,
        wait_s=None,
        notice_s=7.0,
    )

    def join() -> None:
        program = WorkerProgram(("false",), {}, None)
        RemoteAgent(*doors[0], "one", program, tmp_path, shares=[Share()], address="127.0.0.1")

    def of(kind: type) -> list:
        return [event for event in list(events) if isinstance(event, kind)]

    hosts.open(events.append)
    try:
        wait_for(lambda: cloud.made == ["zone-a/one"])
        join()
        wait_for(lambda: of(HostJoined))
        assert not of(HostDraining)
        cloud.health = "UNHEALTHY_MAINTENANCE"
        wait_for(lambda: of(HostDraining))
        assert of(HostDraining)[0].notice_s == 7.0
        hosts.release("one")
        wait_for(lambda: of(HostLost) and len(cloud.made) == 2)
        cloud.health = "HEALTHY"
        join()
        wait_for(lambda: len(of(HostJoined)) == 2)
        assert len(of(HostDraining)) == 1, "it is said once"
    finally:
        hosts.close()
    assert cloud.alive() == [] and doors == []
