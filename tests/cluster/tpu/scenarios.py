"""Random lives of a slice against the emulated API, through the real client."""

from __future__ import annotations

import random
from typing import NamedTuple

from cluster.tpu.cloud_api import CloudTpuApi
from cluster.tpu.patience import Patience
from cluster.tpu.provider import SliceRequest, State
from cluster.tpu.slice_keeper import NoResources, SliceKeeper
from tests.cluster.tpu.emulated_cloud import EmulatedCloud, Zone
from tests.cluster.tpu.emulator import Emulator, Fault, VirtualClock

FAULTS: list[Fault] = ["429", "503", "lost", "dropped"]


class Life(NamedTuple):
    """What became of a slice.

    Attributes:
        ended: How the keeper ended.
        made: Slices made, one after the other.
        together: The most that were there at once.
        left: Those that are there at the end.
        faults: That were injected.
        requests: To the API.
    """

    ended: str
    made: int
    together: int
    left: list[str]
    faults: int
    requests: int


def live(seed: int, emulator: Emulator, clock: VirtualClock, provider: CloudTpuApi) -> Life:
    """One life: zones with and without room, faults, preemptions and a launcher that dies, all drawn from the seed."""
    draw = random.Random(seed)
    zones = {f"zone-{letter}": _zone(draw) for letter in "abc"[: draw.randint(1, 3)]}
    emulator.cloud, emulator.requests = EmulatedCloud(clock.now, zones, remembers=draw.random() < 0.5), []
    rate, counted = draw.choice([0.0, 0.05, 0.2, 0.4]), [0]

    def fault(method: str, path: str) -> Fault | None:
        if draw.random() >= rate:
            return None
        counted[0] += 1
        return draw.choice(FAULTS)

    emulator.fault = fault
    queued = draw.random() < 0.7
    requests = [
        SliceRequest(
            "run-1", zone, accelerator, "tpu-vm-base",
            purchase=draw.choice(["on-demand", "spot"]), queued=queued,
            num_slices=draw.choice([1, 1, 2]) if queued else 1,
        )
        for zone in zones
        for accelerator in draw.sample(["v5litepod-4", "v6e-4"], draw.randint(1, 2))
    ]  # fmt: skip
    ended = "done"
    keeper = _keeper(provider, requests, clock, draw)
    try:
        with keeper:
            keeper.obtain(draw.uniform(30, 3_000))
            for _ in range(draw.randint(0, 2)):
                if draw.random() < 0.5:
                    emulator.cloud.preempt()
                clock.sleep(draw.uniform(0, 2_000))
                if draw.random() < 0.2:  # the launcher is killed; another one finds what it had
                    keeper = _keeper(provider, requests, clock, draw)
                    keeper.obtain(3_000)
                found = keeper.look()
                if found is None or found.state is not State.READY:
                    keeper.replace(3_000)
    except NoResources:
        ended = "no resources"
    cloud = emulator.cloud
    return Life(ended, len(cloud.made), cloud.together, cloud.alive(), counted[0], len(emulator.requests))


def _keeper(
    provider: CloudTpuApi, requests: list[SliceRequest], clock: VirtualClock, draw: random.Random
) -> SliceKeeper:
    patience = Patience(clock, random.Random(draw.random()), give_up_s=20_000.0)
    return SliceKeeper(provider, requests, "run-1", 24 * 3600, patience, queue_s=300.0)


def _zone(draw: random.Random) -> Zone:
    def preempt_s() -> float | None:
        return draw.uniform(1, 600) if draw.random() < 0.3 else None

    return Zone(
        room=draw.choices(["yes", "no", "no quota"], [6, 2, 1])[0],
        queue_s=draw.choice([0.0, 10.0, 900.0]),
        create_s=draw.choice([1.0, 60.0, 1_500.0]),
        delete_s=draw.choice([0.0, 20.0, 900.0]),
        preempt_s=preempt_s,
    )
