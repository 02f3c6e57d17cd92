"""`phalanx tpu ...` with the key of a service account, against the emulated API."""

import json
import random

import pytest

from cluster.tpu.patience import Patience
from launch.cli import run
from launch.exit_code import ExitCode
from tests.cluster.tpu.emulated_cloud import EmulatedCloud, Zone
from tests.cluster.tpu.emulator import emulated

pytest.importorskip("cloud_tpu_client", reason="cloud-tpu-client is an extra")

PLACE = ["--project", "p", "--zone", "zone-a", "--zone", "zone-b"]
CREATE = ["tpu", "create", "one", *PLACE, "--type", "v5litepod-4"]


@pytest.fixture
def server():
    with emulated({}) as running:
        yield running


@pytest.fixture
def cloud(server, tmp_path, monkeypatch) -> EmulatedCloud:
    emulator, clock = server
    key = emulator.write_key(tmp_path / "key.json")
    monkeypatch.setenv("TPU_API_DISCOVERY_URL", emulator.discovery_url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.setattr("launch.tpu_slices.Patience", lambda: Patience(clock, random.Random(1)))
    emulator.cloud = EmulatedCloud(clock.now, {"zone-a": Zone(), "zone-b": Zone()})
    emulator.fault = lambda method, path: None
    return emulator.cloud


def test_a_slice_from_its_creation_to_its_end(cloud, capsys):
    assert run([*CREATE, "--spot", "--label", "team=vision", "--json"]) == ExitCode.DONE
    made = json.loads(capsys.readouterr().out)
    assert (made["state"], made["purchase"], made["labels"]["team"]) == ("ready", "spot", "vision")
    assert run(["tpu", "wait", "one", *PLACE]) == ExitCode.DONE
    assert run(["tpu", "describe", "one", *PLACE, "--json"]) == ExitCode.DONE
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["health"]["healthy"]
    assert run(["tpu", "list", *PLACE]) == ExitCode.DONE
    assert "run one" in capsys.readouterr().out
    assert run(["tpu", "delete", "one", *PLACE]) == ExitCode.DONE
    assert cloud.alive() == []
    assert run(["tpu", "list", *PLACE]) == ExitCode.DONE
    assert capsys.readouterr().out.endswith("no slices of Phalanx\n")


def test_a_repeated_command_makes_no_second_slice(cloud):
    assert run(CREATE) == run(CREATE) == ExitCode.DONE
    assert cloud.made == ["zone-a/one"]


def test_what_is_asked_for_without_waiting_is_waited_for_later(cloud, capsys):
    assert run([*CREATE, "--no-wait"]) == ExitCode.DONE
    assert "is queued" in capsys.readouterr().out
    assert run(["tpu", "wait", "one", *PLACE]) == ExitCode.DONE
    said = capsys.readouterr()
    assert "the request waits in the queue" in said.err
    assert "the slice one in zone-a is ready: 10.0.0.2" in said.out


def test_no_room_anywhere_is_no_resources_and_leaves_nothing(cloud, capsys):
    cloud.zones.update({"zone-a": Zone(room="no"), "zone-b": Zone(room="no quota")})
    assert run([*CREATE, "--wait-limit", "900"]) == ExitCode.NO_RESOURCES
    error = capsys.readouterr().err
    assert "no slice one was ready within 900 s" in error
    assert "zone-b: Quota limit" in error
    assert cloud.alive() == []


def test_ctrl_c_takes_back_what_was_asked_for(cloud, server, monkeypatch):
    _, clock = server
    sleep, naps = clock.sleep, []

    def interrupted(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", interrupted)
    assert run(CREATE) == ExitCode.STOPPED
    assert cloud.made == ["zone-a/one"]
    assert cloud.alive() == []


def test_a_slice_that_outlives_its_hours_is_an_orphan(cloud, server, capsys):
    assert run([*CREATE, "--max-run-hours", "2"]) == ExitCode.DONE
    assert run(["tpu", "list", "--orphans", *PLACE]) == ExitCode.DONE
    assert capsys.readouterr().out.endswith("no orphans\n")
    server[1].sleep(3 * 3600)
    assert run(["tpu", "list", "--orphans", *PLACE]) == ExitCode.FAILED
    assert "ORPHAN: 1.0 h past its max_run_hours" in capsys.readouterr().out


def test_a_slice_of_somebody_else_is_not_deleted(cloud, server, capsys):
    cloud.handle("POST", "projects/p/locations/zone-a/nodes", {"nodeId": "theirs"}, {"acceleratorType": "v2-8"})
    assert run(["tpu", "delete", "theirs", *PLACE]) == ExitCode.WRONG_REQUEST
    assert "was not made by Phalanx: add --foreign" in capsys.readouterr().err
    assert run(["tpu", "delete", "theirs", *PLACE, "--foreign"]) == ExitCode.DONE
    assert cloud.alive() == []


def test_requests_that_cannot_be_are_refused_before_anything_is_asked(cloud, server, capsys):
    server[0].requests.clear()
    assert run([*CREATE, "--spot", "--reserved"]) == ExitCode.WRONG_REQUEST
    assert run([*CREATE, "--label", "x"]) == ExitCode.WRONG_REQUEST
    assert run(["tpu", "create", "One", *PLACE, "--type", "v5litepod-4"]) == ExitCode.WRONG_REQUEST
    error = capsys.readouterr().err
    assert "--label x must be KEY=VALUE" in error
    assert "the slice name 'One' must be" in error
    assert server[0].requests == []


def test_a_slice_that_is_not_there_is_named(cloud, capsys):
    assert run(["tpu", "describe", "none", *PLACE]) == ExitCode.WRONG_REQUEST
    assert "there is no slice none in zone-a, zone-b: look with phalanx tpu list" in capsys.readouterr().err


def test_missing_credentials_say_what_to_do(cloud, monkeypatch, capsys):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    assert run(["tpu", "list", *PLACE]) == ExitCode.WRONG_REQUEST
    assert "run gcloud auth application-default login" in capsys.readouterr().err
