"""What a YAML file sets: several models, a canary, a shadow, limits; and servers that do not start."""

import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from tensorflow_serving.apis import predict_pb2

from tests.delivery.serving.serving_process import SANDBOX, Server, save

pytestmark = pytest.mark.processes

SERVE = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "serve"]


def save_lengths(folder: Path) -> None:
    """How long texts are: an input of strings, and an output that Regress takes."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def answer(text):
        return {"outputs": tf.cast(tf.strings.length(text), tf.float32)}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": answer})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("models")
    (base / "double").mkdir()
    for version, factor in enumerate((2.0, 3.0, 4.0), 1):
        save(base / "double" / str(version), factor)
    save_lengths(base / "lengths")
    config = base / "serve.yaml"
    double = {"name": "double", "path": str(base / "double"), "canary": "1", "canary_percent": 25, "shadow": "2"}
    models = [double, {"name": "lengths", "path": str(base / "lengths")}]
    limits = {"request_bytes": 4096, "rows": 8}
    more = {"batching": {"latency_bound_ms": 0.001}, "json_log": "-", "cloud_project": "my-project"}
    config.write_text(yaml.safe_dump({"models": models, "limits": limits, **more}))
    running = Server(base / "double", base / "log", "--allow-unsigned", "--config", str(config))
    yield running
    running.end()


def test_a_canary_gets_its_share_and_a_shadow_its_copies(server: Server):
    versions = [server.predict([[1, 1]]).model_spec.version.value for _ in range(40)]
    assert versions.count(1) == 10 and versions.count(3) == 30
    assert server.http("/versions/1:predict", {"instances": [[1, 1]]}) == (200, {"predictions": [[2, 2]]})
    wanted = 'phalanx_serving_shadow_total{model="double",outcome="different",version="2"}'
    end = time.monotonic() + 30
    while wanted not in server.get("/metrics")[1]:
        assert time.monotonic() < end, server.get("/metrics")[1]
        server.predict([[1, 1]])


def test_a_second_model_takes_texts_bytes_and_examples(server: Server):
    server.rest_name = "lengths"
    try:
        encoded = {"b64": base64.b64encode(b"\xff\x00three").decode()}
        assert server.http(":predict", {"instances": ["one", encoded]}) == (200, {"predictions": [3, 7]})
        assert server.http(":regress", {"examples": [{"text": "four"}]}) == (200, {"results": [4]})
        status, answer = server.http(":predict", {"instances": [{"b64": "not base64"}]})
        assert status == 400 and "not base64" in answer["error"]
    finally:
        server.rest_name = "double"


def test_what_is_too_large_or_too_late_is_refused(server: Server):
    status, answer = server.http(":predict", {"instances": [[1, 1]] * 1000})
    assert status in (400, 413) and "4096" in answer["error"]
    status, answer = server.http(":predict", {"instances": [[1, 1]] * 9})
    assert status == 400 and "more than the 8 allowed" in answer["error"]
    with pytest.raises(grpc.RpcError) as refused:
        server.predict([[1, 1]] * 1000)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    status, answer = server.http(":predict", {"instances": [[1, 1]]}, {"X-Request-Timeout-Ms": "0"})
    assert status == 504 and "deadline" in answer["error"]


def test_who_would_wait_longer_than_the_bound_is_refused_at_once_and_the_others_are_answered(server: Server):
    codes: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                assert server.predict([[1, 1]]).outputs["scores"].float_val[0] in (2, 4)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    while not {"OK", "RESOURCE_EXHAUSTED"} <= set(codes) and time.monotonic() < end:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    with pytest.raises(grpc.RpcError) as refused:
        server.predict([[1, 1]] * 9)
    last = str(dict(refused.value.trailing_metadata())["traceparent"]).split("-")[1]
    while last not in server.log.read_text():
        assert time.monotonic() < end, "the last request is not in the log"
        time.sleep(0.02)
    # Standard error is the log, and nothing but the log.
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    early = [line for line in lines if line.get("code") == "RESOURCE_EXHAUSTED"]
    traces = {line["logging.googleapis.com/trace"].removeprefix("projects/my-project/traces/") for line in early}
    assert early and {line["severity"] for line in early} == {"WARNING"}
    assert not [line for line in lines if traces & set(line.get("traces", ()))]


def test_a_taken_port_and_a_model_that_does_not_fit_are_refused_with_what_to_change(server: Server, tmp_path: Path):
    port = server.grpc.rpartition(":")[2]
    config = tmp_path / "small.yaml"
    config.write_text("limits: {memory: 1MiB}\n")
    command = [*SERVE, f"double={server.base}", "--allow-unsigned", "--rest-port", "0", *SANDBOX]
    taken, large = (
        subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for options in (["--port", port], ["--port", "0", "--config", str(config)])
    )
    said = {process: process.communicate(timeout=120)[1] for process in (taken, large)}
    assert taken.returncode == 2 and "choose another --port" in said[taken], said[taken]
    assert large.returncode == 1 and "limits.memory" in said[large], said[large]


@pytest.mark.parametrize(
    ("limits", "refused"), [({"streams": 4, "pending": 16}, set()), ({"streams": 1000, "pending": 1}, {"CANCELLED"})]
)
def test_a_flood_is_kept_back_by_its_client_or_ended_before_it_is_looked_at(tmp_path: Path, limits, refused):
    base = tmp_path / "double"
    base.mkdir()
    save(base / "1", 2.0)
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump({"models": [{"name": "double", "path": str(base)}], "limits": limits}))
    server = Server(base, tmp_path / "log", "--allow-unsigned", "--config", str(config))
    try:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "double"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones((1, 2), np.float32)))
        calls = [server.predictions.Predict.future(request, timeout=60) for _ in range(500)]
        assert {call.code().name for call in calls} == {"OK", *refused}
        counted = re.findall(r'requests_total{code="OK".*} (\S+)', server.get("/metrics")[1])
        assert sum(map(float, counted)) == sum(call.code() is grpc.StatusCode.OK for call in calls)
        assert server.predict([[1, 1]]).model_spec.version.value == 1
    finally:
        server.end()
