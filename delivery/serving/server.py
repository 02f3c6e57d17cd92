"""One process that serves: starts both protocols, says when it is ready, drains at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import grpc
import uvicorn

from delivery.serving.audit_log import AuditLog
from delivery.serving.clients import Clients
from delivery.serving.gateway import Gateway
from delivery.serving.grpc_service import add_services
from delivery.serving.heap import release_garbage
from delivery.serving.json_log import JsonLog
from delivery.serving.metrics import ServingMetrics
from delivery.serving.observation import BatchObserver
from delivery.serving.rehearsal import rehearse
from delivery.serving.rest_admission import RestAdmission
from delivery.serving.rest_service import build_app
from delivery.serving.settings import STANDARD_ERROR, ServingSettings, TlsSettings
from delivery.serving.version_keeper import VersionKeeper
from delivery.serving.versions import Catalogue

if TYPE_CHECKING:
    from delivery.serving.spans import Spans

log = logging.getLogger("phalanx.serving")


class PortTaken(ValueError):
    """An address cannot be listened on. The message is one sentence for who runs the server."""


class SpansMissing(ValueError):
    """OpenTelemetry is not installed. The message is one sentence for who runs the server."""


class _Uvicorn(uvicorn.Server):
    """Leaves the signals to us: gRPC has to be drained too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: ServingSettings, ready: Callable[[int, int], None], observers: Sequence[BatchObserver] = ()
) -> int:
    """Serves until SIGTERM or SIGINT, then answers what is in flight.

    Args:
        settings: All of them.
        ready: Is told the ports of gRPC and REST, once every model has been warmed up.
        observers: See every answered batch.

    Returns:
        The signal that ended it.

    Raises:
        ModelRefused: A model cannot be served.
        PackageRefused: A model is not trusted.
        PortTaken: An address cannot be listened on.
        ClientsError: The file of the clients cannot be used.
        JsonLogError: The log cannot be written.
        SpansMissing: Spans are asked for, and OpenTelemetry is not installed.
    """
    with contextlib.ExitStack() as ending:
        json_log, spans = None, None
        if settings.json_log is not None:
            place = None if settings.json_log == STANDARD_ERROR else settings.json_log
            json_log = JsonLog(place, settings.cloud_project)
            ending.enter_context(json_log.collecting())
        if settings.otlp_traces_endpoint is not None:
            spans = _spans(settings.otlp_traces_endpoint)
            ending.callback(spans.close)
        return await _serve(settings, ready, observers, json_log, spans)


def _spans(endpoint: str) -> Spans:
    try:
        from delivery.serving.spans import Spans
    except ModuleNotFoundError as error:
        message = f"spans need {error.name}, which is not installed: pip install 'phalanx[opentelemetry]'"
        raise SpansMissing(message) from None
    return Spans(endpoint)


async def _serve(
    settings: ServingSettings,
    ready: Callable[[int, int], None],
    observers: Sequence[BatchObserver],
    json_log: JsonLog | None,
    spans: Spans | None,
) -> int:
    loop, stopped = asyncio.get_running_loop(), asyncio.Future[int]()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda number=number: stopped.done() or stopped.set_result(number))
    # Said now, not after minutes of loading; another program may still take them meanwhile.
    for option, port in (("--port", settings.grpc_port), ("--rest-port", settings.rest_port)):
        _check_free(settings.host, port, option)
    metrics, catalogue = ServingMetrics(), Catalogue([model.name for model in settings.models])
    clients = Clients(settings.clients) if settings.clients else None
    audit = AuditLog(settings.audit_log) if settings.audit_log else None
    gateway = Gateway(settings, catalogue, metrics, clients, audit, json_log, spans)
    keeper = VersionKeeper(settings, catalogue, metrics, observers, json_log, spans)
    loading = asyncio.ensure_future(keeper.load_all())
    await asyncio.wait([loading, stopped], return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        loading.cancel()
        return stopped.result()
    loading.result()

    await rehearse(settings, catalogue)
    release_garbage()
    grpc_server, grpc_port = await _start_grpc(settings, gateway)
    admission = RestAdmission(build_app(gateway), settings, metrics)
    rest = _Uvicorn(_uvicorn_config(settings, admission))
    serving = asyncio.ensure_future(_run_rest(rest))
    while not rest.started and not serving.done():
        await asyncio.sleep(0.005)
    if serving.done():
        await grpc_server.stop(0)
        raise PortTaken(f"{settings.host}:{settings.rest_port} cannot be listened on: choose another --rest-port")
    watching = asyncio.ensure_future(keeper.watch())
    metrics.set_ready(True)
    rest_port = rest.servers[0].sockets[0].getsockname()[1]
    log.info("ready", extra={"host": settings.host, "grpc_port": grpc_port, "rest_port": rest_port})
    ready(grpc_port, rest_port)
    number = await stopped
    log.info("draining", extra={"signal": number})
    metrics.set_ready(False)
    watching.cancel()
    admission.drain()
    rest.should_exit = True
    await asyncio.gather(grpc_server.stop(settings.drain_s), serving)
    log.info("ended", extra={"signal": number})
    return number


def _check_free(host: str, port: int, option: str) -> None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        sentence = f"{host}:{port} cannot be listened on ({error.strerror}): choose another {option}, or another --host"
        raise PortTaken(sentence) from None


async def _run_rest(server: _Uvicorn) -> None:
    try:
        await server.serve()
    except SystemExit:  # how uvicorn says that it cannot listen
        return


async def _start_grpc(settings: ServingSettings, gateway: Gateway) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            # To be refused by Python costs as much as to be answered: at three times what it can do a server would be
            # busy with refusing alone (docs/design/serving.md). So clients are kept from sending, and a flood that
            # comes over many connections is ended by gRPC's core, which costs next to nothing.
            ("grpc.max_concurrent_streams", settings.limits.streams),
            # Its strict form also refuses clients that keep to the limit, while their earlier streams are being closed.
            ("grpc.http.overload_protection", 0),
            ("grpc.server.max_pending_requests", settings.limits.pending),
            ("grpc.server.max_pending_requests_hard_limit", 2 * settings.limits.pending),
        ],
        maximum_concurrent_rpcs=settings.limits.concurrent,
    )
    add_services(server, gateway)
    address = f"{settings.host}:{settings.grpc_port}"
    try:
        if settings.tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(settings.tls))
    except RuntimeError:
        raise PortTaken(f"{address} cannot be listened on: choose another --port") from None
    await server.start()
    return server, port


def _credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    roots = tls.client_ca.read_bytes() if tls.client_ca else None
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], roots, require_client_auth=roots is not None)


def _uvicorn_config(settings: ServingSettings, app: RestAdmission) -> uvicorn.Config:
    tls = settings.tls
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.rest_port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(settings.drain_s) or 1,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(tls.client_ca) if tls and tls.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca else ssl.CERT_NONE,
    )
