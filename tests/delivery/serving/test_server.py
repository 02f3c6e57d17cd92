import json
import signal
import threading
import time
from datetime import datetime

import grpc
import pytest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    regression_pb2,
)

from tests.delivery.serving.serving_process import Server, save
from tests.launch.promql import queries, unanswered

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("double")
    save(base / "1", 2.0)
    running = Server(base, base / "log", "--allow-unsigned", "--json-log", str(base / "serve.jsonl"))
    yield running
    running.end()


def test_grpc_predict_classify_and_status(server):
    answer = server.predict([[1, 2], [3, 4]])
    assert list(answer.outputs["scores"].float_val) == [2, 4, 6, 8]
    assert (answer.model_spec.name, answer.model_spec.signature_name) == ("double", "serving_default")
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "double"
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.extend([1, 5])
    (row,) = server.predictions.Classify(request, timeout=30).result.classifications
    assert [(one.label, one.score) for one in row.classes] == [("0", 2), ("1", 10)]
    ask = get_model_status_pb2.GetModelStatusRequest()
    ask.model_spec.name = "double"
    state = model_service_pb2_grpc.ModelServiceStub(server.channel).GetModelStatus(ask, timeout=30)
    assert state.model_version_status[0].state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_rest_rows_columns_metadata_and_errors(server):
    assert server.http(":predict", {"instances": [[1, 2], [3, 4]]}) == (200, {"predictions": [[2, 4], [6, 8]]})
    assert server.http("/versions/1:predict", {"inputs": {"x": [[1, 2]]}}) == (200, {"outputs": [[2, 4]]})
    assert server.http(":classify", {"examples": [{"x": [1.0, 5.0]}]})[1] == {"results": [[["0", 2], ["1", 10]]]}
    assert "serving_default" in server.http("/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert server.http("")[1]["model_version_status"][0]["state"] == "AVAILABLE"
    for path, body, code, message in [
        ("/versions/9:predict", {"instances": [[1, 2]]}, 404, "Servable not found"),
        ("/labels/no:predict", {"instances": [[1, 2]]}, 404, "Unrecognized servable version label"),
        (":predict", b"{", 400, "JSON Parse error"),
        (":predict", b"[" * 100_000, 400, "JSON Parse error"),
        (":predict", {"instances": [[1, 2, 3]]}, 400, r"shape [1, 3], and must have [?, 2]"),
        (":predict", {"instances": [["a", "b"]]}, 400, "no float32"),
        (":predict", {"instances": [[-1, 2]]}, 400, "x must not be negative"),
        (":predict", {}, 400, "either instances"),
        (":explain", {}, 400, "Malformed request"),
    ]:
        status, answer = server.http(path, body)
        assert status == code and message in answer["error"], (path, status, answer)


def test_metadata_health_metrics_and_what_is_not_offered(server):
    ask = get_model_metadata_pb2.GetModelMetadataRequest()
    ask.model_spec.name = "double"
    ask.metadata_field.append("signature_def")
    answer = server.predictions.GetModelMetadata(ask, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert list(signatures.signature_def["serving_default"].inputs) == ["x"]

    check = server.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=30) == b"\x08\x01"
    assert server.get("/healthz") == (200, "ok\n") and server.get("/readyz") == (200, "ready\n")
    server.predict([[1, 1]])
    metrics = server.get("/metrics")[1]
    line = next(line for line in metrics.splitlines() if line.startswith("phalanx_serving_requests_total"))
    assert 'model="double"' in line and "phalanx_serving_ready 1.0" in metrics

    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "double"
    request.input.example_list.examples.add().features.feature["x"].float_list.value.extend([1, 5])
    with pytest.raises(grpc.RpcError) as refused:  # the model gives scores, and no values
        server.predictions.Regress(request, timeout=30)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_bad_request_fails_alone_beside_good_ones(server):
    answers: dict[int, object] = {}

    def ask(index: int) -> None:
        try:
            answers[index] = list(server.predict([[-1.0 if index % 5 == 0 else index, 1]]).outputs["scores"].float_val)
        except grpc.RpcError as error:
            answers[index] = error.code()

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answer in answers.items():
        assert answer == (grpc.StatusCode.INVALID_ARGUMENT if index % 5 == 0 else [2.0 * index, 2.0])
    assert len(answers) == 40


def test_dashboard_and_alert_rules_ask_for_metrics_that_exist(server):
    server.predict([[1, 1]])
    assert unanswered(queries("serving"), server.get("/metrics")[1]) == []


def logged(server: Server, trace: str) -> tuple[list[dict], list[dict]]:
    """The lines of the requests of a trace, and of the batches that name it; a line is written soon after an answer."""
    end = time.monotonic() + 30
    while True:
        lines = [json.loads(line) for line in (server.base / "serve.jsonl").read_text().splitlines()]
        requests = [line for line in lines if line.get("logging.googleapis.com/trace") == trace]
        if requests:
            return requests, [line for line in lines if trace in line.get("traces", ())]
        assert time.monotonic() < end, f"trace {trace} is not in the log"
        time.sleep(0.02)


def trace_of(headers) -> str:
    """The trace id that an answer names, over either protocol."""
    version, trace, span, _ = dict(headers)["traceparent"].split("-")
    assert (version, len(trace), len(span)) == ("00", 32, 16)
    return trace


def test_a_trace_goes_from_the_request_to_its_batch_and_back_over_both_protocols(server):
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    header = f"00-{trace}-{parent}-01"
    path, body = "/versions/1:predict", {"instances": [[1, 2], [3, 4]]}
    assert server.http(f"{path}?key=sesame", body, {"traceparent": header, "User-Agent": "shop/1"})[0] == 200
    assert trace_of(server.headers) == trace
    _, call = server.predictions.Predict.with_call(
        server.request([[5, 6]]), timeout=30, metadata=[("traceparent", header.replace("0af7", "1af7"))]
    )
    assert trace_of(call.trailing_metadata()) == trace.replace("0af7", "1af7")

    (rest,), (rest_batch,) = logged(server, trace)
    (grpc_line,), (grpc_batch,) = logged(server, trace.replace("0af7", "1af7"))
    for line, protocol in ((rest, "rest"), (grpc_line, "grpc")):
        assert (line["severity"], line["message"], line["code"]) == ("INFO", "predict OK", "OK")
        assert line["logging.googleapis.com/labels"] == {"model": "double", "version": "1"}
        assert line["logging.googleapis.com/trace_sampled"] is True
        assert line["parent_span"] == parent != line["logging.googleapis.com/spanId"]
        assert line["protocol"] == protocol and 0 < line["seconds"] < 30
        assert datetime.fromisoformat(line["time"].replace("Z", "+00:00"))
    for line, rows in ((rest_batch, 2), (grpc_batch, 1)):
        assert (line["message"], line["rows"], line["requests"]) == ("batch", rows, 1)
        assert line["logging.googleapis.com/labels"] == {"model": "double", "version": "1"}
    assert "httpRequest" not in grpc_line
    http = rest["httpRequest"]
    assert float(http.pop("latency").removesuffix("s")) == rest["seconds"]
    assert http == {
        "requestMethod": "POST",
        "requestUrl": "/v1/models/double/versions/1:predict",
        "status": 200,
        "requestSize": str(len(json.dumps(body))),
        "responseSize": str(len('{"predictions": [[2.0, 4.0], [6.0, 8.0]]}')),
        "userAgent": "shop/1",
        "remoteIp": "127.0.0.1",
        "protocol": "HTTP/1.1",
    }


def test_a_malformed_traceparent_begins_a_new_trace_and_refusals_are_logged_too(server):
    for header in ("00-nothing", "00-" + "0" * 32 + "-b7ad6b7169203331-01"):
        assert server.http(":predict", {"instances": [[1, 2]]}, {"traceparent": header})[0] == 200
        (line,), (batch,) = logged(server, trace_of(server.headers))
        assert "parent_span" not in line and "logging.googleapis.com/trace_sampled" not in line
        assert batch["traces"] == [trace_of(server.headers)]
    for path, status, code in ((":explain", 400, "INVALID_ARGUMENT"), ("/versions/9:predict", 404, "NOT_FOUND")):
        assert server.http(path, {"instances": [[1, 2]]})[0] == status
        (line,), batches = logged(server, trace_of(server.headers))
        assert (line["severity"], line["code"], line["httpRequest"]["status"]) == ("WARNING", code, status)
        assert not batches
    with pytest.raises(grpc.RpcError) as refused:
        server.predict([[1, 2, 3]])
    (line,), _ = logged(server, trace_of(refused.value.trailing_metadata()))
    assert (line["severity"], line["code"]) == ("WARNING", "INVALID_ARGUMENT")


def test_every_trace_of_requests_that_share_batches_is_in_one_batch(server):
    traces = [f"{number:032x}" for number in range(1, 41)]

    def ask(mine: list[str]) -> None:
        for trace in mine:
            metadata = [("traceparent", f"00-{trace}-b7ad6b7169203331-00")]
            server.predictions.Predict(server.request([[1, 1]]), timeout=30, metadata=metadata)

    threads = [threading.Thread(target=ask, args=(traces[first::8],)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[len(lines) for lines in logged(server, trace)] for trace in traces] == [[1, 1]] * 40


def test_nothing_that_was_sent_or_answered_is_in_the_log(server):
    assert server.http(":predict?key=sesame", {"instances": [[987654.5, 2]]})[1] == {"predictions": [[1975309, 4]]}
    for row in ([-876543, 2], ["sesame", "b"], ["sesame"]):
        assert server.http(":predict", {"instances": [row]})[0] == 400
    with pytest.raises(grpc.RpcError):
        server.predict([[-876543, 2]])
    server.predict([[987654.5, 2]])
    server.http("/metadata")
    logged(server, trace_of(server.headers))
    text = (server.base / "serve.jsonl").read_text()
    assert not [word for word in ("987654", "1975309", "876543", "sesame", "negative") if word in text]


def test_a_new_version_takes_over_without_a_failed_request_and_sigterm_drains(server):
    versions, failures, done = [], [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answer = server.predict([[1, 1]])
                versions.append((answer.model_spec.version.value, answer.outputs["scores"].float_val[0]))
            except grpc.RpcError as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        save(server.base / "2", 3.0)
        end = time.monotonic() + 60
        while (2, 3.0) not in versions[-1:]:
            assert time.monotonic() < end, versions[-1:]
            time.sleep(0.05)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert set(versions) == {(1, 2.0), (2, 3.0)}
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    lines = [json.loads(line) for line in (server.base / "serve.jsonl").read_text().splitlines()]
    assert all({"severity", "time", "message"} <= line.keys() for line in lines)
    events = [
        (line["message"], line.get("logging.googleapis.com/labels", {}).get("version"))
        for line in lines
        if line.get("logger") == "phalanx.serving"
    ]
    assert events == [
        ("version loaded", "1"),
        ("routing changed", None),
        ("ready", None),
        ("version loaded", "2"),
        ("routing changed", None),
        ("version unloaded", "1"),
        ("draining", None),
        ("ended", None),
    ]
