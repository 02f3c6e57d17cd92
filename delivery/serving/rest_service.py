"""TensorFlow Serving's REST protocol, and health, readiness and metrics beside it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from google.protobuf import json_format
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import get_model_metadata_pb2  # noqa: F401  json_format finds its messages by name

from delivery.serving.classified import classes_of, read_examples, values_of
from delivery.serving.errors import ServingError, invalid
from delivery.serving.gateway import Call, Gateway, Target
from delivery.serving.grpc_service import metadata, status
from delivery.serving.json_log import HttpRequest
from delivery.serving.json_tensors import json_bytes, read_json, write_json
from delivery.serving.tensors import too_large

_PATH = re.compile(
    r"(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?"
    r"(?::(?P<method>predict|classify|regress)|/(?P<metadata>metadata))?"
)
_MOST_PATH = 200  # characters that are repeated of what a client makes up
_PRINT: dict[str, Any] = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}


def build_app(gateway: Gateway) -> Starlette:
    """The ASGI application."""

    async def models(request: Request) -> Response:
        match = _PATH.fullmatch(request.path_params["rest"])
        if match is not None and (request.method == "POST") != (match["method"] is not None):
            match = None
        call = _call(gateway, request, match)
        try:
            with gateway.counted(call):
                response = await respond(request, call, match)
                if call.http is not None:
                    call.http.response_bytes = len(response.body)
        except ServingError as error:
            response = _refusal(error)
        if gateway.traces:
            response.headers["traceparent"] = call.trace.traceparent
        return response

    async def respond(request: Request, call: Call, match: re.Match[str] | None) -> Response:
        if match is None:
            raise invalid(f"Malformed request: {request.method} {request.url.path[:_MOST_PATH]}")
        version = match["version"]
        target = Target(match["name"], None if version is None else int(version), match["label"] or "")
        if call.method == "status":
            return _json(json_format.MessageToDict(status(gateway, call, target), **_PRINT))
        if call.method == "metadata":
            return _json(_metadata(gateway, call, target))
        content = await _body(request, gateway.settings.limits.request_bytes)
        if call.http is not None:
            call.http.request_bytes = len(content)
        return await _answer(gateway, call, target, _parsed(content))

    async def alive(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        good = gateway.metrics.is_ready
        return PlainTextResponse("ready\n" if good else "not ready\n", 200 if good else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/v1/models/{rest:path}", models, methods=["GET", "POST"]),
            Route("/healthz", alive),
            Route("/readyz", ready),
            Route("/metrics", metrics),
        ]
    )


def _call(gateway: Gateway, request: Request, match: re.Match[str] | None) -> Call:
    headers = request.headers
    timeout = headers.get("x-request-timeout-ms", "")
    seconds = int(timeout) / 1000 if timeout.isascii() and timeout.isdigit() and len(timeout) < 10 else None
    method = "unknown" if match is None else match["method"] or ("metadata" if match["metadata"] else "status")
    trace = gateway.trace(headers.getlist("traceparent"))
    http = _described(request) if gateway.traces else None
    return Call("rest", method, seconds, trace, headers.get("authorization", ""), http)


def _described(request: Request) -> HttpRequest:
    client, agent = request.client, request.headers.get("user-agent", "")
    protocol = f"HTTP/{request.scope['http_version']}"
    path = request.url.path[:_MOST_PATH]
    return HttpRequest(request.method, path, protocol, client.host if client else "", agent[:_MOST_PATH])


async def _answer(gateway: Gateway, call: Call, target: Target, body: dict[str, Any]) -> Response:
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("signature_name must be a string")
    target = Target(target.model, target.version, target.label, name)
    if call.method == "predict":
        answered = await gateway.predict(call, target, lambda signature: read_json(signature, body))
        if "instances" in body:
            return _json({"predictions": write_json(answered.outputs, rows=True)})
        return _json({"outputs": write_json(answered.outputs, rows=False)})
    examples = _examples(body)
    answered = await gateway.predict(call, target, lambda signature: read_examples(signature, examples))
    return _json({"results": classes_of(answered) if call.method == "classify" else values_of(answered)})


def _examples(body: dict[str, Any]) -> list[Any]:
    context, given = body.get("context", {}), body.get("examples")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in [context, *given]):
        raise invalid("examples must be a list of objects, and context an object")
    return [_example({**context, **one}) for one in given]


def _example(features: dict[str, Any]) -> Any:
    example = example_pb2.Example()  # type: ignore[attr-defined]
    for name, value in features.items():
        values = [json_bytes(one) for one in (value if isinstance(value, list) else [value])]
        try:
            feature = example.features.feature[name]
            if all(isinstance(one, bytes) for one in values):
                feature.bytes_list.value.extend(values)
            elif all(isinstance(one, int) for one in values):
                feature.int64_list.value.extend(values)
            else:
                feature.float_list.value.extend(values)
        except (TypeError, ValueError, OverflowError):
            raise invalid(f"feature {name[:100]!r} must be a value or a list of values of one kind") from None
    return example


def _metadata(gateway: Gateway, call: Call, target: Target) -> dict[str, Any]:
    found = json_format.MessageToDict(metadata(gateway, call, target, ["signature_def"]), **_PRINT)
    found["metadata"]["signature_def"].pop("@type", None)  # TensorFlow Serving leaves it out
    return found


async def _body(request: Request, most: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced) > most:
        raise too_large(int(announced), most)
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > most:
                raise too_large(len(body), most)
    except ClientDisconnect:
        raise ServingError("CANCELLED", "the client left") from None
    return bytes(body)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {str(error)[:200]}") from None
    if not isinstance(body, dict):
        raise invalid("the request must be a JSON object")
    return body


def _json(value: Any) -> Response:
    return Response(json.dumps(value), media_type="application/json")


def _refusal(error: ServingError) -> Response:
    retry = {} if error.retry_after_s is None else {"Retry-After": str(math.ceil(error.retry_after_s))}
    # Not Starlette's own, which cannot write half of a surrogate pair, and a name that a client sent may hold one.
    return Response(json.dumps({"error": str(error)}), error.http_status, retry, "application/json")
