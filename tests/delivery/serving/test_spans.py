"""Spans of a real server, and what the SDK sends by itself, at a collector that reads OTLP."""

import signal
import threading
import time
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from delivery.serving.gateway import Call
from delivery.serving.otlp_endpoint import endpoint_in, files_in
from delivery.serving.settings import ServingSettings
from delivery.serving.trace_context import NO_TRACE, continued
from tests.delivery.serving.collector import Collector, attributes
from tests.delivery.serving.serving_process import Server, save

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVER, INTERNAL, ERROR = 2, 1, 2  # as trace.proto numbers kinds and states


@pytest.fixture
def collector():
    running = Collector()
    yield running
    running.close()


def by_name(spans, name: str) -> list:
    return [span for span in spans if span.name == name]


@pytest.mark.processes
def test_a_request_is_followed_to_its_batch_over_both_protocols_from_within_the_sandbox(tmp_path: Path, monkeypatch):
    collector = Collector()
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint.removesuffix("/v1/traces"),
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=shop",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging",
        "OTEL_SERVICE_NAME": "shop-model",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }.items():
        monkeypatch.setenv(name, value)
    base = tmp_path / "double"
    base.mkdir()
    save(base / "1", 2.0)
    server = Server(base, tmp_path / "log", "--allow-unsigned", "--json-log", str(tmp_path / "serve.jsonl"))
    try:
        rest, over_grpc, refused = (f"{number}{TRACE[1:]}" for number in "123")
        body = {"instances": [[1, 2], [3, 4]]}
        assert server.http(":predict?secret=1", body, {"traceparent": f"00-{rest}-{PARENT}-01"})[0] == 200
        metadata = [("traceparent", f"00-{over_grpc}-{PARENT}-01")]
        server.predictions.Predict(server.request([[5, 6]]), timeout=30, metadata=metadata)
        with pytest.raises(grpc.RpcError):
            server.predictions.Predict(
                server.request([[5, 6, 7]]), timeout=30, metadata=[("traceparent", f"00-{refused}-{PARENT}-01")]
            )
        # Its caller records nothing, and so do we.
        assert server.http(":predict", body, {"traceparent": f"00-{TRACE}-{PARENT}-00"})[0] == 200
        assert server.http("")[0] == 200  # it has no caller that says so: recorded, and answered as such
        begun_here = server.headers["traceparent"]
        server.process.send_signal(signal.SIGTERM)  # what is left is sent at the end
        assert server.process.wait(60) == 0
    finally:
        server.end()
        collector.close()

    spans = collector.spans()
    traces: dict[str, list] = {}
    for span in spans:
        traces.setdefault(span.trace_id.hex(), []).append(span)
    assert TRACE not in traces
    (answered,) = traces[begun_here.split("-")[1]]
    assert (answered.name, answered.span_id.hex(), answered.parent_span_id) == (
        "GET /v1/models/{model}", begun_here.split("-")[2], b"",
    )  # fmt: skip
    for trace, name, more in (
        (rest, "POST /v1/models/{model}:predict",
         {"http.response.status_code": 200, "url.path": "/v1/models/double:predict"}),
        (over_grpc, "tensorflow.serving.PredictionService/Predict", {"rpc.response.status_code": "OK"}),
    ):  # fmt: skip
        (request,), (queue,), (compute,) = (by_name(traces[trace], one) for one in (name, "queue", "compute"))
        assert request.kind == SERVER and request.parent_span_id.hex() == PARENT
        assert {queue.parent_span_id, compute.parent_span_id} == {request.span_id}
        assert request.start_time_unix_nano <= queue.start_time_unix_nano <= queue.end_time_unix_nano
        assert queue.end_time_unix_nano == compute.start_time_unix_nano < compute.end_time_unix_nano
        assert compute.end_time_unix_nano <= request.end_time_unix_nano
        assert abs(request.end_time_unix_nano / 1e9 - time.time()) < 60
        said = attributes(request)
        assert more.items() <= said.items() and "error.type" not in said
        assert (said["phalanx.model"], said["phalanx.model.version"]) == ("double", "1")
        (link,) = compute.links
        (batch,) = traces[link.trace_id.hex()]
        assert (batch.name, batch.span_id, batch.kind) == ("batch", link.span_id, INTERNAL)
        assert [(one.trace_id.hex(), one.span_id) for one in batch.links] == [(trace, compute.span_id)]
        assert attributes(batch)["phalanx.batch.rows"] == (2 if trace == rest else 1)
    (refusal,) = traces[refused]
    assert attributes(refusal)["error.type"] == "INVALID_ARGUMENT" and refusal.status.code != ERROR
    assert not any("secret" in str(message) for _, message, _ in collector.posted)
    path, message, headers = collector.posted[0]
    assert (path, headers["x-team"], headers["content-encoding"]) == ("/v1/traces", "shop", "gzip")
    resource = attributes(message.resource_spans[0].resource)
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("shop-model", "staging")


def test_requests_that_share_a_batch_are_linked_to_it_and_one_that_is_not_recorded_is_left_out(collector, monkeypatch):
    from delivery.serving import spans as module

    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setattr(module, "MOST_LINKS", 2)
    spans = module.Spans(collector.endpoint)
    traces = [continued([f"00-{number:032x}-{PARENT}-01"]) for number in (1, 2, 3)]
    now = time.monotonic()
    spans.batch("double", 7, 5, now, 0.25, [(trace, now - 0.5) for trace in traces] + [(NO_TRACE, now - 0.5)])
    spans.batch("double", 7, 1, now, 0.25, [(NO_TRACE, now)])
    spans.request(Call("grpc", "predict", trace=traces[0], model="double", version="7"), "INTERNAL", 500, 1.0)
    spans.close()
    sent = collector.spans()
    (batch,) = by_name(sent, "batch")
    assert attributes(batch) == {
        "phalanx.model": "double", "phalanx.model.version": "7", "phalanx.batch.rows": 5,
        "phalanx.batch.recorded_requests": 3,
    }  # fmt: skip
    assert [int(link.trace_id.hex(), 16) for link in batch.links] == [1, 2]
    assert [link.span_id for span in by_name(sent, "compute") for link in span.links] == [batch.span_id] * 3
    for span in by_name(sent, "queue"):
        assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(0.5e9, abs=1000)
    assert batch.end_time_unix_nano - batch.start_time_unix_nano == pytest.approx(0.25e9, abs=1000)
    (request,) = by_name(sent, "tensorflow.serving.PredictionService/Predict")
    assert request.status.code == ERROR
    resource = attributes(collector.posted[0][1].resource_spans[0].resource)
    assert resource["service.name"] == "phalanx-serving" and resource["service.instance.id"]


@pytest.mark.parametrize(
    ("sampler", "argument", "recorded"),
    [("always_off", "", (False, False, False)), ("parentbased_traceidratio", "0", (False, True, False)),
     ("always_on", "", (True, True, True))],
)  # fmt: skip
def test_the_sampler_of_the_environment_decides(collector, monkeypatch, sampler, argument, recorded):
    from delivery.serving.spans import Spans

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    spans = Spans(collector.endpoint)
    given = [[], [f"00-{TRACE}-{PARENT}-01"], [f"00-{TRACE}-{PARENT}-00"]]
    assert tuple(spans.decided(continued(headers)).sampled for headers in given) == recorded
    spans.close()


def test_a_collector_that_does_not_answer_is_given_up(monkeypatch):
    import socket

    from delivery.serving.spans import Spans

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spans = Spans(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces")
        call = Call("rest", "predict", trace=continued([f"00-{TRACE}-{PARENT}-01"]))
        threads = [threading.Thread(target=spans.request, args=(call, "OK", 200, 0.1)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        started = time.monotonic()
        spans.close(patience_s=0.2)
        assert time.monotonic() - started < 5


def test_addresses_and_variables_that_cannot_work_are_refused(tmp_path: Path):
    given = {"models": [{"name": "double", "path": tmp_path}], "trust": {"allow_unsigned": True}}
    for endpoint, message in [
        ("collector:4318", "must begin with"),
        ("http://", "must begin with"),
        ("http://collector:none/v1/traces", "must begin with"),
        ("http://collector:4318", "has no path"),
        ("http://user:word@collector:4318/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS"),
    ]:
        with pytest.raises(ValidationError, match=message):
            ServingSettings.model_validate({**given, "otlp_traces_endpoint": endpoint})
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
    assert endpoint_in(named) == "http://collector:4318/v1/traces"
    assert endpoint_in({}) is None and endpoint_in({**named, "OTEL_TRACES_EXPORTER": "none"}) is None
    with pytest.raises(ValueError, match="http/protobuf alone"):
        endpoint_in({**named, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert endpoint_in(
        {**named, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    )
    assert [*files_in({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem"})] == [Path("/ca.pem")]
