"""The emulated API and the real client of it."""

import pytest

from tests.cluster.tpu.emulated_cloud import EmulatedCloud, Zone
from tests.cluster.tpu.emulator import TOKEN, Emulator, VirtualClock


@pytest.fixture(scope="module")
def server():
    """One server for all tests of a file, and its clock."""
    clock = VirtualClock()
    emulator = Emulator(clock, {})
    yield emulator, clock
    emulator.close()


@pytest.fixture
def emulator(server, monkeypatch) -> Emulator:
    """The server with an empty project of two zones, found by the real client."""
    emulator, clock = server
    monkeypatch.setenv("TPU_API_DISCOVERY_URL", emulator.discovery_url)
    monkeypatch.setenv("NO_GCE_CHECK", "True")
    emulator.cloud = EmulatedCloud(clock.now, {"zone-a": Zone(), "zone-b": Zone()})
    emulator.fault, emulator.requests = (lambda method, path: None), []
    return emulator


@pytest.fixture
def clock(server) -> VirtualClock:
    """The time of the emulated cloud."""
    return server[1]


@pytest.fixture
def provider(emulator):
    """The real client."""
    pytest.importorskip("cloud_tpu_client")
    from google.oauth2.credentials import Credentials

    from cluster.tpu.cloud_api import CloudTpuApi

    return CloudTpuApi("p", Credentials(TOKEN), timeout_s=10.0)
