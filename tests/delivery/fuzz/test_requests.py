"""Made-up requests over both protocols to a real server: each is answered rightly or refused, and it goes on."""

import base64
import http.client
import json
import math
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.delivery.fuzz.damage import edited, messages
from tests.delivery.fuzz.rounds import Rounds
from tests.delivery.serving.serving_process import Server

pytestmark = pytest.mark.processes

PREDICTION, MODELS = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"
METHODS = {
    f"{PREDICTION}/Predict": predict_pb2.PredictRequest,
    f"{PREDICTION}/Classify": classification_pb2.ClassificationRequest,
    f"{PREDICTION}/Regress": regression_pb2.RegressionRequest,
    f"{PREDICTION}/GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    f"{PREDICTION}/MultiInference": inference_pb2.MultiInferenceRequest,
    f"{MODELS}/GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    f"{MODELS}/HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}
WORDS = ("", "double", "serving_default", "x", "text", "number", "flag", "signature_def", "scores")
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
PATIENCE_S = 30.0


def save_echo(folder: Path) -> None:
    """Gives back what it is sent, each input under its own name, and `scores`, twice x."""
    module = tf.Module()
    module.factor = tf.Variable(2.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.float32, name="x"),
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None], tf.int32, name="number"),
            tf.TensorSpec([None], tf.bool, name="flag"),
        ]
    )
    def echo(x, text, number, flag):
        echoed = {"text_bytes": tf.identity(text), "number": tf.identity(number), "flag": tf.identity(flag)}
        return {"scores": module.factor * x, **echoed}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": echo})


class Fuzzed:
    """The server, begun anew when it has ended."""

    def __init__(self, base: Path) -> None:
        self._base, self._log, self._read = base, base / "log", 0
        self.server = self._start()

    def _start(self) -> Server:
        self._read = 0
        return Server(self._base, self._log, "--allow-unsigned")

    def alive(self) -> Server:
        """For one example."""
        if self.server.process.poll() is not None:
            self.server.end()
            self.server = self._start()
        return self.server

    def check(self) -> None:
        """That the last example has neither ended the server nor met a mistake of its own."""
        ended = self.server.process.poll()
        with self._log.open() as log:
            log.seek(self._read)
            said = log.read()
            self._read = log.tell()
        assert ended is None, f"the server ended with {ended}: {said[-4000:]}"
        assert "Traceback" not in said and " ERROR " not in said, said[-4000:]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    base = tmp_path_factory.mktemp("echo")
    save_echo(base / "1")
    running = Fuzzed(base)
    yield running
    running.server.end()


def good_request() -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "double"
    given = {"x": np.float32([[1, 2], [3, 4]]), "text": [b"a", b""], "number": np.int32([1, -1]), "flag": [True, False]}
    for name, values in given.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def good_examples(request: Any) -> Any:
    request.model_spec.name = "double"
    features = request.input.example_list.examples.add().features.feature
    features["x"].float_list.value.extend([1, 2])
    features["text"].bytes_list.value.append(b"a")
    features["number"].int64_list.value.append(1)
    features["flag"].int64_list.value.append(1)
    return request


def ask(server: Server, method: str, content: bytes) -> bytes | None:
    """The answer's bytes; None for a refusal that a client's mistake may meet."""
    try:
        return server.channel.unary_unary(method)(content, timeout=PATIENCE_S)
    except grpc.RpcError as error:
        assert error.code() in REFUSALS, (error.code(), error.details())
        return None


def check_answer(content: bytes, answer: bytes) -> None:
    """A request that was answered holds what the answer says, as TensorFlow itself reads it."""
    request, response = predict_pb2.PredictRequest.FromString(content), predict_pb2.PredictResponse.FromString(answer)
    assert request.model_spec.name == "double" and set(request.inputs) == {"x", "text", "number", "flag"}
    for name, sent in (("scores", "x"), ("text_bytes", "text"), ("number", "number"), ("flag", "flag")):
        if name not in response.outputs:
            assert request.output_filter and name not in request.output_filter
            continue
        given, got = tf.make_ndarray(request.inputs[sent]), tf.make_ndarray(response.outputs[name])
        wanted = given * np.float32(2) if name == "scores" else given
        assert got.dtype == wanted.dtype and got.shape == wanted.shape and len(got)
        assert np.array_equal(got, wanted, equal_nan=name == "scores")


def test_damaged_predictions_over_grpc(fuzzed: Fuzzed, rounds: Rounds):
    def check(content: bytes) -> None:
        answer = ask(fuzzed.alive(), f"{PREDICTION}/Predict", content)
        fuzzed.check()
        if answer is not None:
            check_answer(content, answer)

    good = good_request().SerializeToString()
    answer = ask(fuzzed.alive(), f"{PREDICTION}/Predict", good)
    assert answer is not None
    check_answer(good, answer)
    rounds.run("grpc_damaged_predictions", check, edited(good), 60)


def test_any_message_and_any_bytes_over_grpc(fuzzed: Fuzzed, rounds: Rounds):
    def check(example: tuple[str, bytes]) -> None:
        method, content = example
        answer = ask(fuzzed.alive(), method, content)
        fuzzed.check()
        if answer is not None and method.endswith("/Predict"):
            check_answer(content, answer)

    good = {name: kind() for name, kind in METHODS.items()}
    good[f"{PREDICTION}/Predict"] = good_request()
    for name in ("Classify", "Regress"):
        good_examples(good[f"{PREDICTION}/{name}"])
    for method, message in good.items():
        check((method, message.SerializeToString()))
    rounds.run(
        "grpc_any_message",
        check,
        st.one_of(
            [
                st.tuples(
                    st.just(name),
                    st.one_of(
                        messages(kind, WORDS).map(lambda message: message.SerializeToString()),
                        edited(good[name].SerializeToString()),
                        st.binary(max_size=64),
                    ),
                )
                for name, kind in METHODS.items()
            ]
        ),
        120,
    )


texts = st.one_of(st.sampled_from((*WORDS, "b64", "NaN", "9" * 30, "\ud800")), st.text(max_size=6))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from((2**31, 2**63, 2**64, -(2**70))), st.floats(), texts
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(texts, inner, max_size=3),
        st.fixed_dictionaries({"b64": inner}),
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {
        "x": st.one_of(st.lists(st.one_of(st.floats(width=32), st.integers(-9, 9)), min_size=2, max_size=2), values),
        "text": st.one_of(st.text(max_size=4), values),
        "number": st.one_of(st.integers(-(2**31), 2**31 - 1), values),
        "flag": st.one_of(st.booleans(), values),
    }
)
bodies = st.one_of(
    st.fixed_dictionaries({"instances": st.lists(rows, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"inputs": st.one_of(rows, values)}),
    st.fixed_dictionaries({"examples": st.lists(st.one_of(rows, values), max_size=2)}, optional={"context": values}),
    st.dictionaries(st.sampled_from(("instances", "inputs", "examples", "context", "signature_name")), values),
    values,
)
PATHS = ("/v1/models/double:predict", "/v1/models/double:classify", "/v1/models/double/versions/1:regress")
GOOD_ROW = {"x": [1.0, 2.0], "text": {"b64": "YQ=="}, "number": 1, "flag": True}


def post(server: Server, path: str, content: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.rest_port), timeout=PATIENCE_S)
    try:
        connection.request("POST", path, content)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def as_sent(row: dict[str, Any], answered: dict[str, Any]) -> bool:
    """Whether an answer of the model gives back the row."""
    text = row["text"]
    sent = base64.b64decode(text["b64"]) if isinstance(text, dict) else text.encode()
    scores = [float(np.float32(2) * np.float32(one)) for one in row["x"]]
    near = all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(scores, answered["scores"], strict=True))
    same = base64.b64decode(answered["text_bytes"]["b64"]) == sent
    numbers = type(row["number"]) is int and row["number"] == answered["number"]
    return near and same and numbers and type(row["flag"]) is bool and row["flag"] == answered["flag"]


def test_bodies_over_rest(fuzzed: Fuzzed, rounds: Rounds):
    def check(example: tuple[str, bytes]) -> None:
        path, content = example
        status, answer = post(fuzzed.alive(), path, content)
        fuzzed.check()
        assert status == 200 or status in (400, 404, 413), (status, answer)
        fields = json.loads(answer)
        if status != 200:
            assert isinstance(fields["error"], str)
        elif "predictions" in fields:
            sent = json.loads(content)["instances"]
            assert len(sent) == len(fields["predictions"]) and all(map(as_sent, sent, fields["predictions"]))

    good = json.dumps({"instances": [GOOD_ROW, {**GOOD_ROW, "text": "é"}]}).encode()
    status, answer = post(fuzzed.alive(), PATHS[0], good)
    assert status == 200 and len(json.loads(answer)["predictions"]) == 2
    check((PATHS[0], good))
    # Each was answered with 500 and a stack trace in the log once.
    for found in (
        {"examples": [{"x": "\ud800"}]},
        {"examples": [{"\ud800": 1}]},
        {"examples": [{"x": {"b64": "é"}}]},
        {"instances": [GOOD_ROW], "signature_name": "\ud800"},
        {"instances": [{**GOOD_ROW, "text": "\ud800"}]},
    ):
        for path in PATHS:
            check((path, json.dumps(found).encode()))
    written = bodies.map(lambda body: json.dumps(body).encode())
    contents = st.one_of(written, written, edited(good), st.binary(max_size=32))
    rounds.run("rest_bodies", check, st.tuples(st.sampled_from(PATHS), contents), 150)


def exchange(port: int, sent: bytes) -> bytes:
    """What comes back over a connection of its own, until the server closes it or waits for more."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        got = b""
        try:
            connection.sendall(sent)
            # Whether a request is whole, who sends anything does not know: then the server is told that it was all.
            if not select.select([connection], [], [], 0.05)[0]:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                got += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed before all was read: a refusal too
        return got


def test_paths_headers_and_raw_bytes_over_rest(fuzzed: Fuzzed, rounds: Rounds):
    def check(sent: bytes) -> None:
        answer = exchange(int(fuzzed.alive().rest_port), sent)
        fuzzed.check()
        if answer:
            status = int(answer.split(b" ", 2)[1])
            assert status < 500 or status == 501, answer[:500]

    body = json.dumps({"instances": [GOOD_ROW]}).encode()
    head = b"POST /v1/models/double:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    good = head % len(body) + body
    assert exchange(int(fuzzed.alive().rest_port), good).startswith(b"HTTP/1.1 200 ")
    part = st.one_of(
        st.sampled_from(
            (b"/", b"v1", b"models", b"double", b":predict", b"versions", b"labels", b"metadata", b"..", b"%")
        ),
        st.binary(min_size=1, max_size=4).map(lambda raw: b"".join(b"%%%02x" % byte for byte in raw)),
    )
    paths = st.lists(part, max_size=6).map(lambda parts: b"/v1/models/" + b"".join(parts))
    names = st.sampled_from(
        (b"Content-Length", b"Transfer-Encoding", b"Authorization", b"traceparent", b"X-Request-Timeout-Ms", b"Expect",
         b"Connection", b"Upgrade", b"Content-Encoding", b"Host")
    )  # fmt: skip
    some = st.one_of(
        st.sampled_from(
            (b"0", b"-1", b"chunked", b"9" * 25, b"Bearer x.y", b"00-" + b"1" * 32, b"100-continue", b"h2c")
        ),
        st.binary(max_size=12).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"")),
    )
    headers = st.lists(st.tuples(names, some), max_size=3).map(
        lambda all_: b"".join(b"%s: %s\r\n" % one for one in all_)
    )
    verbs = st.sampled_from((b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PRI", b"CONNECT", b"X"))
    made = st.tuples(verbs, paths, headers, st.binary(max_size=16)).map(
        lambda it: b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n%s" % it
    )
    rounds.run("rest_raw", check, st.one_of(made, made, edited(good), st.binary(max_size=64)), 30)
