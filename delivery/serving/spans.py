"""Spans of requests and batches for OpenTelemetry, sent by OTLP over HTTP from a thread of the SDK's own.

Loaded only where spans are asked for. A request's span has two children, the wait for its batch and the computation.
A batch belongs to no single trace, so it has a trace of its own that links to its requests, as they link to it
(https://opentelemetry.io/docs/concepts/signals/traces/#span-links). Names follow the conventions of RPC and HTTP.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.status import Status, StatusCode

from delivery.serving.trace_context import Trace

if TYPE_CHECKING:
    from delivery.serving.gateway import Call

MOST_LINKS = 100
"""Requests that one batch names."""
_SERVICE = "phalanx-serving"
_SCOPE = InstrumentationScope("phalanx.serving")
_RECORDED = otel.TraceFlags(otel.TraceFlags.SAMPLED)
# What the conventions call an error of the server's; else it was the client's.
_SERVER_ERRORS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
_FULL_NAMES = {
    "predict": "tensorflow.serving.PredictionService/Predict",
    "classify": "tensorflow.serving.PredictionService/Classify",
    "regress": "tensorflow.serving.PredictionService/Regress",
    "metadata": "tensorflow.serving.PredictionService/GetModelMetadata",
    "status": "tensorflow.serving.ModelService/GetModelStatus",
}
_ROUTES = {"status": "/v1/models/{model}", "metadata": "/v1/models/{model}/metadata"}
_ids = random.Random()  # as in trace_context: they have to differ, not to be secret


class Spans:
    """Takes what has happened and sends it off later. From any thread.

    Everything beside the address is read from OpenTelemetry's own variables: OTEL_SERVICE_NAME,
    OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_SCHEDULE_DELAY and the like.
    What does not fit in the queue (OTEL_BSP_MAX_QUEUE_SIZE), or is not taken, is lost: no request waits for it.

    Args:
        endpoint: Where OTLP messages of traces are posted to, with its path.
    """

    def __init__(self, endpoint: str) -> None:
        # Resource.create would let OTEL_SERVICE_NAME be overruled by a name of ours.
        named = Resource({"service.name": _SERVICE, "service.instance.id": str(uuid.uuid4()), **_version()})
        self._resource = Resource.create().merge(named).merge(OTELResourceDetector().detect())
        # Of the provider only the sampler is used, which it makes as the environment says: spans are told of when they
        # are over, with the ids that logs and answers name already, and its tracer would make others.
        provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._should_sample = provider.sampler.should_sample
        self._processor = BatchSpanProcessor(OTLPSpanExporter(endpoint))

    def decided(self, trace: Trace) -> Trace:
        """The same trace, recorded or not as the sampler says."""
        context = None
        if trace.parent:
            flags = _RECORDED if trace.sampled else otel.TraceFlags(0)
            parent = otel.SpanContext(int(trace.id, 16), int(trace.parent, 16), is_remote=True, trace_flags=flags)
            context = otel.set_span_in_context(otel.NonRecordingSpan(parent))
        result = self._should_sample(context, int(trace.id, 16), "request", otel.SpanKind.SERVER)
        return trace._replace(sampled=result.decision == Decision.RECORD_AND_SAMPLE)

    def request(self, call: Call, code: str, http_status: int, seconds: float) -> None:
        """A request has been answered or refused.

        Args:
            call: Itself.
            code: gRPC's name of the outcome.
            http_status: The same in HTTP.
            seconds: It took.
        """
        trace = call.trace
        if not trace.sampled:
            return
        attributes: dict[str, str | int] = {"phalanx.model": call.model, "phalanx.model.version": call.version}
        if call.protocol == "grpc":
            name = _FULL_NAMES.get(call.method, "unknown")
            attributes |= {"rpc.system.name": "grpc", "rpc.method": name, "rpc.response.status_code": code}
        else:
            route = _ROUTES.get(call.method, f"/v1/models/{{model}}:{call.method}")
            name, attributes["http.route"] = route, route
            attributes["http.response.status_code"] = http_status
            if call.http is not None:
                name = f"{call.http.method} {route}"
                attributes |= {"http.request.method": call.http.method, "url.path": call.http.path}
                attributes |= {"http.request.body.size": call.http.request_bytes, "url.scheme": "http"}
        status = Status(StatusCode.UNSET)
        if code != "OK":
            attributes["error.type"] = code
            if code in _SERVER_ERRORS:
                status = Status(StatusCode.ERROR)
        end = time.time_ns()
        self._end(
            name, trace.id, trace.span, trace.parent, (end - int(seconds * 1e9), end), attributes,
            kind=otel.SpanKind.SERVER, status=status, is_remote=True,
        )  # fmt: skip

    def batch(
        self, model: str, number: int, rows: int, begun: float, seconds: float, requests: Iterable[tuple[Trace, float]]
    ) -> None:
        """A batch has been computed.

        Args:
            model: Its name.
            number: Its version.
            rows: Without padding.
            begun: When, by the clock of `time.monotonic`.
            seconds: It took.
            requests: In it, each with when it was queued by the same clock; those not recorded are left out.
        """
        recorded = [(trace, queued) for trace, queued in requests if trace.sampled]
        if not recorded:
            return
        to_wall = time.time_ns() - int(time.monotonic() * 1e9)
        times = to_wall + int(begun * 1e9), to_wall + int((begun + seconds) * 1e9)
        attributes = {"phalanx.model": model, "phalanx.model.version": str(number), "phalanx.batch.rows": rows}
        trace_id, span_id = f"{_ids.getrandbits(128) or 1:032x}", _span_id()
        to_batch = [otel.Link(_context(trace_id, span_id))]
        links = []
        for trace, queued in recorded:
            compute = _span_id()
            waited = to_wall + int(queued * 1e9), times[0]
            self._end("queue", trace.id, _span_id(), trace.span, waited, attributes)
            self._end("compute", trace.id, compute, trace.span, times, attributes, to_batch)
            if len(links) < MOST_LINKS:
                links.append(otel.Link(_context(trace.id, compute)))
        counted = {**attributes, "phalanx.batch.recorded_requests": len(recorded)}
        self._end("batch", trace_id, span_id, "", times, counted, links)

    def close(self, patience_s: float = 5.0) -> None:
        """Sends what waits; a collector that does not answer is given up."""
        ending = threading.Thread(target=self._processor.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(patience_s)

    def _end(
        self,
        name: str,
        trace_id: str,
        span_id: str,
        parent: str,
        times: tuple[int, int],
        attributes: Mapping[str, str | int],
        links: Sequence[otel.Link] = (),
        kind: otel.SpanKind = otel.SpanKind.INTERNAL,
        status: Status | None = None,
        is_remote: bool = False,
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                _context(trace_id, span_id),
                _context(trace_id, parent, is_remote) if parent else None,
                self._resource,
                attributes,
                (),
                links,
                kind,
                status=status or Status(StatusCode.UNSET),
                start_time=times[0],
                end_time=times[1],
                instrumentation_scope=_SCOPE,
            )
        )


def _context(trace_id: str, span_id: str, is_remote: bool = False) -> otel.SpanContext:
    return otel.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, _RECORDED)


def _span_id() -> str:
    return f"{_ids.getrandbits(64) or 1:016x}"


def _version() -> dict[str, str]:
    try:
        return {"service.version": version("phalanx")}
    except PackageNotFoundError:  # run from its sources
        return {}
