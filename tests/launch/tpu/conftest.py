"""An emulated cloud, and machines for its slices, for the runs that need slices."""

from collections.abc import Iterator

import pytest

from cluster.tpu.patience import Patience, WallClock
from tests.cluster.tpu.emulated_cloud import Zone
from tests.cluster.tpu.emulated_machines import EmulatedMachines, machines_of
from tests.cluster.tpu.emulator import Emulator
from tests.launch.tpu import quick_cloud


@pytest.fixture
def emulator(tmp_path, monkeypatch) -> Iterator[Emulator]:
    """A cloud in whose first zone there is no room, and in the second soon."""
    quick = Zone(queue_s=1.0, create_s=0.5, delete_s=0.2)
    emulator = Emulator(WallClock(), {"zone-a": Zone(room="no quota"), "zone-b": quick})
    monkeypatch.setattr(Patience, "pause", quick_cloud.pause)
    monkeypatch.setenv("TPU_API_DISCOVERY_URL", emulator.discovery_url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(emulator.write_key(tmp_path / "key.json")))
    yield emulator
    emulator.close()


@pytest.fixture
def machines(emulator, tmp_path) -> Iterator[EmulatedMachines]:
    (tmp_path / "machines").mkdir()
    with machines_of(emulator.cloud, emulator.lock, tmp_path / "machines") as machines:
        yield machines
