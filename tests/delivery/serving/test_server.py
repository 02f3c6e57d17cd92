import signal
import threading
import time

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

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("double")
    save(base / "1", 2.0)
    running = Server(base, base / "log", "--allow-unsigned")
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
