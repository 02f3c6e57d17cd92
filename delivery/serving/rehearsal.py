"""The requests that a server sends itself before it says that it is ready, through all that later ones go through.

The warm-up of a version (`delivery/serving/warmup.py`) calls its signatures alone. The rest of a request's way is used
for the first time here: both servers, the token and the count, the logs, handlers, messages, and the queue. The server
asks itself over connections of both protocols, which are Unix sockets in a folder that only this user can enter: so no
certificate is needed, nobody else can ask, and readiness is not seen early. Tokens, counts and logs are those of a
gateway of its own, which goes with the folder, so that nothing of it is in those of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from uvicorn.server import ServerState

from delivery.serving.audit_log import AuditLog
from delivery.serving.clients import Clients, create_token
from delivery.serving.gateway import Gateway
from delivery.serving.grpc_service import add_services
from delivery.serving.json_log import JsonLog
from delivery.serving.json_tensors import write_json
from delivery.serving.metrics import ServingMetrics
from delivery.serving.rest_admission import RestAdmission
from delivery.serving.rest_service import build_app
from delivery.serving.settings import ServingSettings
from delivery.serving.tensors import write_tensor
from delivery.serving.versions import Catalogue, ServedVersion

log = logging.getLogger("phalanx.serving")
_REPEATS = 20  # of each model over each protocol: some 50 ms in all
_LONG_S = 0.5  # after which a slow model is not asked again
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class _Stage:
    """What is asked, with a token that it lets in, or ""."""

    settings: ServingSettings
    metrics: ServingMetrics
    gateway: Gateway
    token: str


async def rehearse(settings: ServingSettings, catalogue: Catalogue) -> int:
    """Asks every model that has a request to be asked with; what fails is left to those who ask later.

    Args:
        settings: Of the server.
        catalogue: Its models; nobody else asks them yet.

    Returns:
        How many answers came.
    """
    versions = [version for model in catalogue.models.values() if (version := model.default()) is not None]
    asked = [version for version in versions if version.loaded.request is not None]
    if not asked:
        return 0
    try:
        with (
            tempfile.TemporaryDirectory(prefix="phalanx-") as folder,
            _stage(settings, catalogue, asked, Path(folder)) as stage,
        ):
            return await _over_grpc(stage, asked, f"{folder}/grpc") + await _over_rest(stage, asked, f"{folder}/rest")
    except Exception:  # the server answers as well without it, its first request a little later
        log.warning("the rehearsal failed", exc_info=True)
        return 0


@contextlib.contextmanager
def _stage(
    settings: ServingSettings, catalogue: Catalogue, versions: list[ServedVersion], folder: Path
) -> Iterator[_Stage]:
    """A gateway like the server's, in front of the same models, which meanwhile tell it alone of their batches."""
    metrics, clients, audit, json_log, token = ServingMetrics(), None, None, None, ""
    with contextlib.ExitStack() as ending:
        if settings.clients is not None:
            token = create_token(folder / "clients", "rehearsal")
            clients = Clients(folder / "clients")
        if settings.audit_log is not None:
            audit = AuditLog(folder / "audit")
            ending.callback(audit.close)
        if settings.json_log is not None:
            json_log = JsonLog(folder / "log", settings.cloud_project)
            ending.enter_context(json_log.collecting())
        for version in versions:
            ending.enter_context(version.batcher.telling(metrics, json_log))
        gateway = Gateway(settings, catalogue, metrics, clients, audit, json_log, rehearses=True)
        yield _Stage(settings, metrics, gateway, token)


def _turns() -> Iterator[int]:
    """Numbers from 0 on, as often as a model is asked."""
    end = time.monotonic() + _LONG_S
    for turn in range(_REPEATS):
        yield turn
        if time.monotonic() > end:
            return


async def _over_grpc(stage: _Stage, versions: list[ServedVersion], place: str) -> int:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    server = grpc.aio.server()
    add_services(server, stage.gateway)
    server.add_insecure_port(f"unix:{place}")
    await server.start()
    metadata = (("authorization", f"Bearer {stage.token}"),) if stage.token else ()
    answers = 0
    try:
        async with grpc.aio.insecure_channel(f"unix:{place}") as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            for version in versions:
                request = _request(version)
                for _ in _turns():
                    try:
                        await predict(request, timeout=_PATIENCE_S, metadata=metadata)
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


async def _over_rest(stage: _Stage, versions: list[ServedVersion], place: str) -> int:
    admission = RestAdmission(build_app(stage.gateway), stage.settings, stage.metrics)
    config = uvicorn.Config(admission, log_config=None, access_log=False, lifespan="off")
    config.load()
    kind: Any = config.http_protocol_class
    # Its protocol alone: a whole server of uvicorn takes 0.2 s to end, and logs that it does.
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: kind(config=config, server_state=state, app_state={}), place)
    answers = 0
    try:
        reader, writer = await asyncio.open_unix_connection(place)
        with contextlib.closing(writer):
            for version in versions:
                sent = _post(version, stage.token)
                for _ in _turns():
                    writer.write(sent)
                    status = await asyncio.wait_for(_status(reader), _PATIENCE_S)
                    if status != 200:
                        break
                    answers += 1
    finally:
        server.close()
    return answers


def _post(version: ServedVersion, token: str) -> bytes:
    """A request as it travels."""
    assert version.loaded.request is not None
    columns = {name: write_json({f"{name}_bytes": one}, rows=False) for name, one in version.loaded.request.items()}
    body = json.dumps({"inputs": columns}).encode()
    head = f"POST /v1/models/{version.model}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    return f"{head}\r\n".encode() + body


async def _status(reader: asyncio.StreamReader) -> int:
    """Reads an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: *(\d+)", head)
    assert length is not None
    await reader.readexactly(int(length[1]))
    return int(head.split(b" ", 2)[1])
