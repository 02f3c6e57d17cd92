"""From the data to a decision that is watched, as a user goes: every step a command, every client a stock one.

`make e2e` runs it. The tests are steps of one road, in their order; a step that fails leaves nothing for the next ones.
"""

import itertools
import json
import os
import select
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from delivery.web.litert_js import LiteRtJsMissing, find_litert_js
from tests.certificates import issue
from tests.delivery.serving.serving_process import SANDBOX
from tests.delivery.web.chromium import browser, find_chromium, served

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0

pytestmark = [pytest.mark.processes, pytest.mark.e2e]


@dataclass
class Road:
    """Where the steps leave what the next ones need."""

    folder: Path
    token: str = ""
    server: "Server | None" = None
    failures: list[str] = field(default_factory=list)

    def phalanx(self, *arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-c", "from launch.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=self.folder, text=True, capture_output=True, timeout=LIMIT_S, env=_here())
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def _here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


class Server:
    """`phalanx serve` of the alias production, with TLS and tokens."""

    def __init__(self, road: Road) -> None:
        command = [sys.executable, "-c", "from launch.cli import main; main()", "serve", "mnist"]
        command += ["--repository", "models", "--alias", "production", "--keys", "keys", "--clients", "clients.json"]
        command += ["--tls-certificate", "server.pem", "--tls-key", "server.key", "--latency-bound-ms", "5000"]
        command += ["--port", "0", "--rest-port", "0", *SANDBOX]
        self.log = road.folder / "serve.log"
        self.process = subprocess.Popen(
            command, cwd=road.folder, env=_here(), stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True
        )
        assert select.select([self.process.stdout], [], [], LIMIT_S)[0], self.log.read_text()
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words[:1] == ["ready"], self.log.read_text()
        self.rest = f"https://{words[4]}"
        self.authority = road.folder / "authority.pem"
        self.channel = grpc.secure_channel(words[2], grpc.ssl_channel_credentials(self.authority.read_bytes()))
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def predict(self, images: np.ndarray, token: str) -> tuple[int, np.ndarray]:
        """The version that answered, and its probabilities, by TensorFlow Serving's own stub."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "mnist"
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(images))
        answer = self.stub.Predict(request, timeout=30, metadata=[("authorization", f"Bearer {token}")])
        return answer.model_spec.version.value, tf.make_ndarray(answer.outputs["probabilities"])

    def metrics(self) -> dict[str, float]:
        context = ssl.create_default_context(cafile=str(self.authority))
        with urllib.request.urlopen(f"{self.rest}/metrics", timeout=30, context=context) as answer:
            lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def end(self) -> int:
        self.channel.close()
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    made = Road(tmp_path_factory.mktemp("road"))
    yield made
    if made.server is not None and made.server.process.poll() is None:
        made.server.process.kill()
        made.server.process.wait()


@pytest.fixture(autouse=True)
def steps_before_succeeded(road: Road, request: pytest.FixtureRequest) -> Iterator[None]:
    if road.failures:
        pytest.skip(f"the road ends at {road.failures[0]}")
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        road.failures.append(request.node.name)


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The 1,000 test images of the sample, as an application has them, and their classes."""
    from launch.config import load_config
    from trainer.data.registry import open_source

    source = open_source(load_config(str(ROOT / "configs" / "mnist.yaml"), []).data, "held_out")
    samples = source.read(tf.range(source.schema.num_samples, dtype=tf.int64))
    return np.rint(samples["image"].numpy() * 255).astype(np.uint8), samples["label"].numpy()


def _wait_until(reached: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < end, f"{what}: not in {LIMIT_S:g} s"
        time.sleep(0.05)


def test_train(road: Road) -> None:
    road.phalanx("train", str(ROOT / "configs" / "mnist.yaml"))
    assert (road.folder / "runs/mnist/export/1/saved_model.pb").is_file()


def test_export_and_verify(road: Road) -> None:
    road.phalanx("keys", "create", "release")
    road.phalanx("export", "runs/mnist", "--key", "keys/release.key")
    assert "signed with release" in road.phalanx("verify", "runs/mnist/export/1", "--key", "keys")
    damaged = road.folder / "damaged"
    shutil.copytree(road.folder / "runs/mnist/export/1", damaged)
    graph = damaged / "saved_model.pb"
    graph.chmod(0o644)
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    road.phalanx("verify", "damaged", "--key", "keys", code=1)


def _released(road: Road) -> str:
    road.phalanx("repository", "publish", "runs/mnist/export/1", "--key", "keys/release.key")
    gates = str(ROOT / "launch" / "ci" / "gates.yaml")
    return road.phalanx("release", "mnist", "--to", "production", "--gates", gates, "--key", "keys")


def test_release(road: Road) -> None:
    print(_released(road))
    assert "production" in road.phalanx("repository", "list", "mnist")


def test_serve_with_tls_and_a_token(road: Road, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    authority = issue(road.folder, "authority")
    issue(road.folder, "server", authority)
    road.token = road.phalanx("tokens", "create", "shop", "--file", "clients.json").split()[-1]
    server = road.server = Server(road)
    images, labels = held_out
    version, probabilities = server.predict(images, road.token)
    assert version == 1 and (probabilities.argmax(-1) == labels).mean() >= 0.93
    with pytest.raises(grpc.RpcError) as refused:
        server.predict(images[:1], "not a token")
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_ask_with_curl(road: Road, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    assert road.server is not None
    images, _ = held_out
    body = road.folder / "request.json"
    body.write_text(json.dumps({"instances": images[:3].tolist()}))
    command = ["curl", "--silent", "--show-error", "--cacert", str(road.server.authority), "--data", f"@{body}"]
    address = f"{road.server.rest}/v1/models/mnist:predict"

    def asked(*more: str) -> dict:
        return json.loads(
            subprocess.run([*command, *more, address], check=True, capture_output=True, timeout=60).stdout
        )

    assert "error" in asked()
    answer = asked("--header", f"Authorization: Bearer {road.token}")["predictions"]
    _, expected = road.server.predict(images[:3], road.token)
    found = [one["probabilities"] if isinstance(one, dict) else one for one in answer]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_change_the_version_under_load(road: Road, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    server, (images, _), ended = road.server, held_out, threading.Event()
    assert server is not None
    answered: list[int] = []
    failed: list[str] = []

    def ask(first: int) -> None:
        for index in itertools.cycle(range(first, len(images), 8)):
            if ended.is_set():
                return
            try:
                answered.append(server.predict(images[index : index + 1], road.token)[0])
            except grpc.RpcError as error:
                failed.append(str(error))

    clients = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for client in clients:
        client.start()
    try:
        _wait_until(lambda: len(answered) > 100, "answers of version 1")
        _released(road)
        _wait_until(lambda: 2 in answered, "an answer of version 2")
        after = len(answered)
        _wait_until(lambda: len(answered) > after + 200, "answers after the change")
    finally:
        ended.set()
        for client in clients:
            client.join()
    print(f"{answered.count(1)} answers of version 1, {answered.count(2)} of version 2, {len(failed)} failed")
    assert not failed, failed[0]
    assert set(answered[-100:]) == {2}


def test_shrink(road: Road) -> None:
    print(road.phalanx("export", "runs/mnist", "--to", "litert", "--budget", "2MB", "--keep", "0.98"))
    chosen = road.folder / "runs/mnist/export/litert/model.tflite"
    assert chosen.stat().st_size < 2_000_000


def test_open_the_page_in_a_browser(road: Road) -> None:
    if find_chromium() is None:
        pytest.skip("there is no chromium: make browser installs it")
    try:
        modules = find_litert_js()
    except LiteRtJsMissing as missing:
        pytest.skip(f"{missing} (make browser does so)")
    road.phalanx("export", "runs/mnist", "--to", "web", "--litert-js", str(modules))
    with served(road.folder / "runs/mnist/export/web") as address, browser(road.folder) as page:
        page.send("Page.navigate", url=address)
        page.wait_for(lambda page: page.evaluate("document.body?.dataset.state ?? 'loading'") != "loading")
        assert page.evaluate("document.body.dataset.compared") == page.evaluate("document.body.dataset.equal") == "64"


def test_drift_raises_the_alarm_and_nothing_else_does(road: Road, held_out: tuple[np.ndarray, np.ndarray]) -> None:
    server, (images, _) = road.server, held_out
    assert server is not None
    alarm = 'phalanx_drift_alarm{model="mnist",version="2"}'
    judged = 'phalanx_drift_samples{model="mnist",version="2"}'
    hundreds = itertools.cycle(np.random.default_rng(0).permutation(len(images)).reshape(-1, 100))

    def send(sent: np.ndarray) -> None:
        for index in next(hundreds):
            server.predict(sent[index : index + 1], road.token)

    def are_judged() -> bool:  # of what comes at once only a part is
        send(images)
        return server.metrics()[judged] >= 200

    _wait_until(are_judged, "200 samples that are judged")
    assert server.metrics()[alarm] == 0
    asked = 0

    def alarmed() -> bool:
        nonlocal asked
        send(images // 2)
        asked += 100
        return server.metrics()[alarm] == 1

    _wait_until(alarmed, "the alarm")
    print(f"alarm within {asked} images of half the brightness")


def test_end_gracefully(road: Road) -> None:
    assert road.server is not None and road.server.end() == 0, road.server and road.server.log.read_text()
