"""A server that follows an alias of a repository: signed versions take over, a damaged one does not."""

import json
import time
from pathlib import Path

import pytest

from launch.cli import run
from tests.delivery.serving.serving_process import Server

pytestmark = pytest.mark.processes


def states(server: Server) -> dict[str, str]:
    return {entry["version"]: entry["state"] for entry in server.http("")[1]["model_version_status"]}


def wait_until(reached) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end, "not reached in 60 s"
        time.sleep(0.05)


def test_promoted_versions_take_over_and_a_damaged_one_does_not(package: Path, tmp_path: Path):
    keys, models = tmp_path / "keys", tmp_path / "models"
    assert run(["keys", "create", "ci", "--folder", str(keys)]) == 0

    def publish() -> None:
        command = ["repository", "publish", str(package), "--name", "double", "--key", f"{keys}/ci.key"]
        assert run([*command, "--repository", str(models)]) == 0

    def promote(version: int) -> None:
        command = ["repository", "promote", "double", str(version), "--to", "production"]
        assert run([*command, "--repository", str(models)]) == 0

    publish()
    promote(1)
    log = tmp_path / "serve.jsonl"
    image = {"instances": [[[[0]] * 8] * 8]}
    server = Server(
        models / "double", tmp_path / "log", "--alias", "production", "--keys", str(keys), "--json-log", str(log)
    )
    try:
        assert states(server) == {"1": "AVAILABLE"}
        origin = 'phalanx_serving_version_info{model="double",run="digits",step="30",version="%s"} 1.0'
        assert origin % 1 in server.get("/metrics")[1]
        status, answer = server.http("/labels/production:predict", image)
        assert status == 200, answer

        # Nothing but black images is far from what it was trained on.
        def drift() -> dict[str, float]:
            lines = [line.rsplit(" ", 1) for line in server.get("/metrics")[1].splitlines() if "phalanx_drift_" in line]
            return {name: float(value) for name, value in lines if not name.startswith("#")}

        key = '{model="double",version="1"}'
        assert drift()[f"phalanx_drift_alarm{key}"] == 0
        black = {"instances": image["instances"] * 250}
        # Of what comes at once only a part is looked at.
        wait_until(
            lambda: server.http(":predict", black)[0] == 200 and drift()[f"phalanx_drift_alarm{key}"] == 1,
        )

        publish()
        promote(2)
        wait_until(lambda: states(server).get("2") == "AVAILABLE" and states(server)["1"] == "END")
        wait_until(lambda: origin % 1 not in server.get("/metrics")[1])
        assert origin % 2 in server.get("/metrics")[1]
        assert server.http("/versions/2:predict", image)[0] == 200
        assert server.http("/versions/1:predict", image)[0] == 404

        publish()
        graph = models / "double" / "3" / "saved_model.pb"
        graph.chmod(0o644)
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 1
        graph.write_bytes(content)
        promote(3)
        wait_until(lambda: states(server).get("3") == "END")
        (damaged,) = server.http("/versions/3")[1]["model_version_status"]
        assert "saved_model.pb" in damaged["status"]["error_message"]
        wait_until(lambda: "version refused" in log.read_text())
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        (loaded, _), (refused,) = (
            [line for line in lines if line["message"] == f"version {what}"] for what in ("loaded", "refused")
        )
        assert (loaded["run"], loaded["step"]) == ("digits", "30")
        assert refused["severity"] == "ERROR" and "saved_model.pb" in refused["error"]
        assert refused["logging.googleapis.com/labels"] == {"model": "double", "version": "3"}
        assert server.http(":predict", image)[0] == 200 and states(server)["2"] == "AVAILABLE"
    finally:
        server.end()
