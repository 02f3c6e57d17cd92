"""One slice, whatever happens: against the emulated API, in virtual time."""

import random

import pytest

from cluster.tpu.patience import Patience
from cluster.tpu.provider import NameTaken, SliceRequest, State, Unavailable, WrongCredentials
from cluster.tpu.slice_keeper import LeftBehind, NoResources, SliceKeeper
from tests.cluster.tpu.emulated_cloud import Zone
from tests.cluster.tpu.scenarios import live


def requests(*zones, **change):
    return [SliceRequest("one", zone, "v5litepod-4", "base", **change) for zone in zones]


@pytest.fixture
def keeper(provider, clock):
    def make(*zones, run="r", give_up_s=900.0, say=lambda text: None, **change):
        patience = Patience(clock, random.Random(1), give_up_s=give_up_s)
        return SliceKeeper(provider, requests(*(zones or ["zone-a"]), **change), run, 3600.0, patience, say, 300.0)

    return make


def test_a_slice_is_made_and_given_back(keeper, emulator, clock):
    said = []
    with keeper(say=said.append) as slices:
        found = slices.obtain(600)
        assert found.state is State.READY
        assert found.run == "r"
        assert found.expires == pytest.approx(clock.now() + 3600, abs=120)
        assert said == list(dict.fromkeys(said))
        assert any("waits in the queue" in reason for reason in said)
    assert emulator.cloud.alive() == []


def test_a_second_launcher_finds_the_slice_of_the_first(keeper, emulator):
    keeper().obtain(600)
    assert keeper("zone-b", "zone-a").obtain(600).zone == "zone-a"
    assert emulator.cloud.made == ["zone-a/one"]


def test_a_slice_of_somebody_else_is_left_alone(keeper, emulator):
    keeper(run="other").obtain(600)
    with pytest.raises(NameTaken, match="belongs to the run other: choose another name"):
        keeper().obtain(600)
    keeper().release()
    assert emulator.cloud.alive() == ["zone-a/one"]


@pytest.mark.parametrize("room", ["no", "no quota"])
@pytest.mark.parametrize("queued", [True, False])
def test_the_next_zone_is_asked_when_the_first_has_no_room(room, queued, keeper, emulator):
    emulator.cloud.zones["zone-a"] = Zone(room=room)
    assert keeper("zone-a", "zone-b", queued=queued).obtain(3600).zone == "zone-b"
    assert emulator.cloud.alive() == ["zone-b/one"]
    assert emulator.cloud.together == 1


def test_what_did_not_become_ready_is_taken_back(keeper, emulator):
    emulator.cloud.zones["zone-a"] = Zone(room="no")
    with pytest.raises(
        NoResources, match=r"within 100 s \(zone-a: .*queue for capacity.*\): wait longer, or name more"
    ):
        keeper().obtain(100)
    assert emulator.cloud.alive() == []


def test_a_lost_answer_makes_no_second_slice(keeper, emulator):
    lost = iter(["lost", "lost", "lost", "lost"])
    emulator.fault = lambda method, path: next(lost, None) if method == "POST" else None
    keeper().obtain(600)
    assert emulator.cloud.made == ["zone-a/one"]


def test_a_slice_that_is_taken_away_while_it_is_made_is_made_again(keeper, emulator):
    times = iter([10.0])
    emulator.cloud.zones["zone-a"] = Zone(preempt_s=lambda: next(times, None))
    assert keeper(purchase="spot").obtain(3600).state is State.READY
    assert emulator.cloud.made == ["zone-a/one"] * 2
    assert emulator.cloud.together == 1


def test_a_preempted_slice_is_replaced(keeper, emulator):
    slices = keeper()
    slices.obtain(600)
    emulator.cloud.preempt()
    assert slices.look().state is State.PREEMPTED
    assert slices.replace(600).state is State.READY
    assert (emulator.cloud.made, emulator.cloud.together) == (["zone-a/one"] * 2, 1)


def test_an_interruption_gives_the_slice_back(keeper, emulator):
    with pytest.raises(KeyboardInterrupt), keeper() as slices:
        slices.obtain(600)
        raise KeyboardInterrupt
    assert emulator.cloud.alive() == []


def test_a_slice_that_cannot_be_deleted_is_loudly_named(keeper, emulator):
    slices = keeper(give_up_s=60.0)
    slices.obtain(600)
    emulator.fault = lambda method, path: "503" if method == "DELETE" else None
    with pytest.raises(LeftBehind, match=r"may still be there and cost money: one in zone-a .* phalanx tpu delete"):
        slices.release()


def test_patience_ends_and_wrong_credentials_end_it_at_once(keeper, emulator, clock):
    emulator.fault = lambda method, path: "503"
    began = clock.now()
    with pytest.raises(Unavailable):
        keeper(give_up_s=600.0).obtain(3600)
    assert 600 <= clock.now() - began < 700
    assert len(emulator.requests) < 40  # pauses grow
    emulator.fault, emulator.requests = (lambda method, path: "denied"), []
    with pytest.raises(WrongCredentials):
        keeper().obtain(3600)
    assert len(emulator.requests) == 1


@pytest.mark.parametrize("first", range(0, 24, 8))
def test_random_lives_leave_nothing_behind_and_make_nothing_twice(first, emulator, clock, provider):
    for seed in range(first, first + 8):
        life = live(seed, emulator, clock, provider)
        assert life.left == [], f"seed {seed}"
        assert life.together <= 1, f"seed {seed}"


def test_a_request_that_came_to_nothing_is_told_once_and_hinders_nobody(keeper, emulator, clock):
    emulator.cloud.zones["zone-a"] = Zone(room="no")
    slices = keeper(queued=False)
    assert slices.ask().state is State.CREATING
    clock.sleep(10)
    assert slices.look() is None
    slices.release()
    emulator.cloud.zones["zone-a"] = Zone()
    assert slices.obtain(600).state is State.READY
