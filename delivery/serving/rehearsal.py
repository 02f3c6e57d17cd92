"""The requests that a server sends itself before it says that it is ready, through all that later ones go through.

The warm-up of a version (`delivery/serving/warmup.py`) calls its signatures alone. The rest of a request's way is used
for the first time here: handlers, messages, the queue, the application of REST. Over gRPC the server asks itself by a
Unix socket in a folder that only this user can enter, and which is gone before the server listens, so no certificate
and no token is needed; over REST by the interface that the HTTP server itself uses.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import grpc

from delivery.serving.gateway import Gateway
from delivery.serving.grpc_service import add_services
from delivery.serving.json_tensors import write_json
from delivery.serving.tensors import write_tensor
from delivery.serving.versions import ServedVersion

log = logging.getLogger("phalanx.serving")
_REPEATS = 20  # of each model over each protocol: some 50 ms in all
_LONG_S = 0.5  # after which a slow model is not asked again
_PATIENCE_S = 30.0


async def rehearse(gateway: Gateway, app: Any) -> int:
    """Asks every model that has a request to be asked with; what fails is left to those who ask later.

    Args:
        gateway: Rehearses: nobody else can reach it yet.
        app: The application of REST, on the same gateway.

    Returns:
        How many answers came.
    """
    versions = [version for model in gateway.catalogue.models.values() if (version := model.default()) is not None]
    asked = [version for version in versions if version.loaded.request is not None]
    if not asked:
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="phalanx-") as folder:
            return await _over_grpc(gateway, asked, f"{folder}/grpc") + await _over_rest(app, asked)
    except Exception:  # the server answers as well without it, its first request a little later
        log.warning("the rehearsal failed", exc_info=True)
        return 0


def _turns() -> Iterator[int]:
    """Numbers from 0 on, as often as a model is asked."""
    end = time.monotonic() + _LONG_S
    for turn in range(_REPEATS):
        yield turn
        if time.monotonic() > end:
            return


async def _over_grpc(gateway: Gateway, versions: list[ServedVersion], place: str) -> int:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    server = grpc.aio.server()
    add_services(server, gateway)
    server.add_insecure_port(f"unix:{place}")
    await server.start()
    answers = 0
    try:
        async with grpc.aio.insecure_channel(f"unix:{place}") as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            for version in versions:
                request = _request(version)
                for _ in _turns():
                    try:
                        await predict(request, timeout=_PATIENCE_S)
                    except grpc.RpcError:
                        break
                    answers += 1
    finally:
        await server.stop(1.0)  # returns once nobody asks; at once, gRPC logs that it cancels
    return answers


def _request(version: ServedVersion) -> Any:
    from tensorflow_serving.apis import predict_pb2

    assert version.loaded.request is not None
    request = predict_pb2.PredictRequest()  # type: ignore[attr-defined]
    request.model_spec.name = version.model
    signature = version.loaded.signature("")
    for name, values in version.loaded.request.items():
        write_tensor(values, signature.inputs[name].dtype, request.inputs[name])
    return request


async def _over_rest(app: Any, versions: list[ServedVersion]) -> int:
    """By the interface that the HTTP server calls the application through."""
    answers = 0
    for version in versions:
        path, body = f"/v1/models/{version.model}:predict", _body(version)
        headers = [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
        for _ in _turns():
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "root_path": "",
                "headers": headers,
                "client": ("127.0.0.1", 0),
                "server": ("127.0.0.1", 0),
            }
            statuses: list[int] = []

            async def receive(body: bytes = body) -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: dict[str, Any], statuses: list[int] = statuses) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            await app(scope, receive, send)
            answers += statuses == [200]
    return answers


def _body(version: ServedVersion) -> bytes:
    assert version.loaded.request is not None
    columns = {name: write_json({f"{name}_bytes": one}, rows=False) for name, one in version.loaded.request.items()}
    return json.dumps({"inputs": columns}).encode()
