"""The real client of the Cloud TPU API against a server that speaks its wire format."""

import pytest

from cluster.tpu.cloud_errors import error_of_answer, error_of_status
from cluster.tpu.provider import (
    NameTaken,
    NoCapacity,
    NoQuota,
    RequestRefused,
    SliceRequest,
    State,
    Unavailable,
    WrongCredentials,
)
from tests.cluster.tpu.emulated_cloud import Zone


def request(name="one", **change):
    return SliceRequest(name, **{"zone": "zone-a", "accelerator": "v5litepod-4", "runtime_version": "base", **change})


def test_a_queued_slice_lives_from_the_queue_to_its_end(emulator, clock, provider):
    provider.create(request(labels={"phalanx-run": "r"}, purchase="spot", startup_script="#!/bin/bash\ntrue\n"))
    found = provider.find("one", "zone-a")
    assert (found.state, found.run, found.purchase) == (State.QUEUED, "r", "spot")
    clock.sleep(2)
    assert "capacity" in provider.find("one", "zone-a").reason
    clock.sleep(10)
    assert provider.find("one", "zone-a").state is State.CREATING
    clock.sleep(20)
    ready = provider.find("one", "zone-a")
    assert (ready.state, ready.hosts, ready.accelerator) == (State.READY, ("10.0.0.2",), "v5litepod-4")
    assert ready.created == pytest.approx(clock.now() - 32, abs=1)
    provider.delete("one", "zone-a")
    assert provider.find("one", "zone-a").state is State.DELETING
    clock.sleep(11)
    assert provider.find("one", "zone-a") is None
    provider.delete("one", "zone-a")  # of one that is gone it is no error


def test_a_slice_without_a_queue_is_a_node(emulator, clock, provider):
    provider.create(request(queued=False, network="n", subnetwork="s", service_account="a@p", external_ips=False))
    assert provider.find("one", "zone-a").state is State.CREATING
    ((_, body),) = [(made.name, made.body) for made in emulator.cloud._slices.values()]
    assert body["networkConfig"] == {"enableExternalIps": False, "network": "n", "subnetwork": "s"}
    assert body["serviceAccount"]["email"] == "a@p"
    clock.sleep(21)
    assert provider.find("one", "zone-a").state is State.READY
    provider.delete("one", "zone-a")
    clock.sleep(11)
    assert emulator.cloud.alive() == []


def test_slices_that_belong_together_are_one(emulator, clock, provider):
    provider.create(request(num_slices=3))
    clock.sleep(30)
    found = provider.find("one", "zone-a")
    assert found.state is State.READY
    assert found.hosts == ("10.0.0.2", "10.0.1.2", "10.0.2.2")
    assert [each.name for each in provider.list("zone-a")] == ["one"]


def test_all_pages_are_listed(emulator, clock, provider):
    for i in range(5):
        provider.create(request(f"queued-{i}"))
        provider.create(request(f"node-{i}", queued=False))
    clock.sleep(30)
    assert len(provider.list("zone-a")) == 10
    assert provider.list("zone-b") == []


def test_the_same_request_twice_makes_one_slice(emulator, provider):
    twice = request(labels={"phalanx-request": "x"})
    provider.create(twice)
    provider.create(twice)
    assert emulator.cloud.made == ["zone-a/one"]
    with pytest.raises(NameTaken):
        provider.create(request(labels={"phalanx-request": "y"}))


def test_a_preempted_slice_says_so(emulator, clock, provider):
    provider.create(request(purchase="spot"))
    clock.sleep(30)
    emulator.cloud.preempt()
    found = provider.find("one", "zone-a")
    assert found.state is State.PREEMPTED and found.state.is_dead
    assert "taken away" in found.reason


def test_a_node_for_which_there_is_no_room_says_why(emulator, clock, provider):
    emulator.cloud.zones["zone-a"] = Zone(room="no")
    provider.create(request(queued=False))
    clock.sleep(5)
    with pytest.raises(NoCapacity, match="no more capacity in the zone"):
        provider.find("one", "zone-a")
    assert provider.find("one", "zone-a") is None


def test_quota_is_told_from_too_many_requests(emulator, clock, provider):
    emulator.cloud.zones["zone-a"] = Zone(room="no quota")
    with pytest.raises(NoQuota, match="ask for more, or name another zone"):
        provider.create(request(queued=False))
    provider.create(request())
    failed = provider.find("one", "zone-a")
    assert failed.state is State.FAILED
    assert "Quota limit" in failed.reason
    emulator.fault = lambda method, path: "429"
    with pytest.raises(Unavailable, match="asks for patience"):
        provider.find("one", "zone-a")


@pytest.mark.parametrize("fault", ["503", "dropped", "lost"])
def test_what_may_have_been_done_is_not_known(fault, emulator, provider):
    provider.find("none", "zone-a")
    emulator.fault = lambda method, path: fault if method == "POST" else None
    with pytest.raises((Unavailable, NameTaken)):  # the HTTP client itself sends a request again whose answer is lost
        provider.create(request())
    emulator.fault = lambda method, path: None
    assert (provider.find("one", "zone-a") is not None) == (fault == "lost")
    assert len(emulator.cloud.made) == (fault == "lost")


def test_wrong_credentials_are_named(emulator):
    from google.oauth2.credentials import Credentials

    from cluster.tpu.cloud_api import CloudTpuApi

    with pytest.raises(WrongCredentials, match="gcloud auth application-default login"):
        CloudTpuApi("p", Credentials("another")).find("one", "zone-a")


def test_a_project_of_others_is_refused(emulator):
    from google.oauth2.credentials import Credentials

    from cluster.tpu.cloud_api import CloudTpuApi
    from tests.cluster.tpu.emulator import TOKEN

    with pytest.raises(WrongCredentials, match="the role TPU Admin"):
        CloudTpuApi("q", Credentials(TOKEN)).find("one", "zone-a")


def test_a_zone_that_is_none_is_refused(emulator, provider):
    with pytest.raises(RequestRefused, match="Location nowhere is not found"):
        provider.create(request(zone="nowhere"))


def test_health_comes_from_the_client_of_the_first_version(emulator, clock, provider):
    provider.create(request(queued=False))
    clock.sleep(30)
    assert provider.health("one", "zone-a").healthy
    emulator.cloud.health = "UNHEALTHY_MAINTENANCE"
    emulator.cloud.symptoms = [{"symptomType": "LOW_MEMORY", "createTime": "2026-01-01T00:00:00.1Z"}]
    health = provider.health("one", "zone-a")
    assert (health.healthy, health.maintenance, health.recoverable) == (False, True, True)
    assert health.symptoms == ("LOW_MEMORY",)
    emulator.cloud.preempt()
    assert not provider.health("one", "zone-a").recoverable
    emulator.fault = lambda method, path: "503"
    with pytest.raises(Unavailable):
        provider.health("one", "zone-a")


def test_a_server_that_is_not_there_may_come_back(emulator, monkeypatch):
    from google.oauth2.credentials import Credentials

    from cluster.tpu.cloud_api import CloudTpuApi

    monkeypatch.setenv("TPU_API_DISCOVERY_URL", "http://127.0.0.1:9/{api}/{apiVersion}")
    with pytest.raises(Unavailable, match="does not answer"):
        CloudTpuApi("p", Credentials("t")).find("one", "zone-a")


def test_statuses_of_operations_are_understood():
    assert isinstance(error_of_status({"code": 8, "message": "There is no more capacity in the zone"}), NoCapacity)
    assert isinstance(error_of_status({"code": 7, "message": "denied"}), WrongCredentials)
    assert isinstance(error_of_status({"code": 14, "message": "later"}), Unavailable)
    assert isinstance(error_of_answer(400, b"<html>not json</html>"), RequestRefused)
    assert isinstance(error_of_answer(502, b""), Unavailable)


@pytest.mark.parametrize("name", ["", "Upper", "1st", "ends-", "x" * 41])
def test_names_that_the_api_refuses_are_refused_before(name):
    with pytest.raises(ValueError, match="must be at most 40 lower-case letters"):
        request(name)


def test_impossible_requests_are_refused_before():
    with pytest.raises(ValueError, match="must be asked for with a queued request"):
        request(num_slices=2, queued=False)
    with pytest.raises(ValueError, match="must go with purchase=reserved, not spot"):
        request(purchase="spot", reservation="r")
    with pytest.raises(ValueError, match="the label A=b must be"):
        request(labels={"A": "b"})
