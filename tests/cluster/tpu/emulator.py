"""The Cloud TPU API on loopback, for real clients: HTTP, discovery, credentials, and everything that goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from tests.cluster.tpu.discovery import discovery_document
from tests.cluster.tpu.emulated_cloud import EmulatedCloud, Refused, Zone

Fault = Literal["429", "503", "lost", "dropped", "denied"]
"""Too many requests; no service; the answer is lost after the server acted; the request is; 403."""

TOKEN = "the-only-good-token"  # of a server that only this test can reach


class VirtualClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now, self._lock = start, threading.Lock()

    def now(self) -> float:
        """Seconds since 1970."""
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        """Lets so much time pass."""
        with self._lock:
            self._now += seconds


class Emulator:
    """A server of the API.

    Args:
        clock: Whose time the cloud lives in.
        zones: How they behave.
        fault: Says what goes wrong with a request, by method and path; None: nothing.

    Attributes:
        cloud: What is behind it.
        lock: Guards the cloud.
        requests: Method and path of each, without those for discovery.
    """

    def __init__(
        self,
        clock: VirtualClock,
        zones: dict[str, Zone],
        fault: Callable[[str, str], Fault | None] = lambda method, path: None,
    ) -> None:
        self.cloud = EmulatedCloud(clock.now, zones)
        self.fault, self.requests = fault, list[tuple[str, str]]()
        self.lock = threading.Lock()
        emulator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet, or the client waits for the second
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                emulator.answer(self)

            def do_POST(self) -> None:
                emulator.answer(self)

            def do_DELETE(self) -> None:
                emulator.answer(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.root = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def discovery_url(self) -> str:
        """For TPU_API_DISCOVERY_URL."""
        return self.root + "discovery/{api}/{apiVersion}"

    def write_key(self, path: Path) -> Path:
        """The key file of a service account, whose tokens come from this server."""
        import rsa

        _, private = rsa.newkeys(1024)
        facts = {
            "type": "service_account",
            "project_id": self.cloud.project,
            "private_key_id": "1",
            "client_id": "1",
            "private_key": private.save_pkcs1().decode(),
            "client_email": "a@p.iam.gserviceaccount.com",
            "token_uri": f"{self.root}token",
        }
        path.write_text(json.dumps(facts))
        return path

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one HTTP request."""
        address = urlsplit(request.path)
        path = address.path.lstrip("/")
        length = int(request.headers.get("Content-Length") or 0)
        content = request.rfile.read(length)
        if path == "token":
            _send(request, 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
            return
        body = json.loads(content) if content else {}
        if path.startswith("discovery/"):
            _send(request, 200, discovery_document(self.root, path.rpartition("/")[2]))
            return
        version, _, resource = path.partition("/")
        assert version in ("v1", "v2"), path
        with self.lock:
            self.requests.append((request.command, resource))
            fault = self.fault(request.command, resource)
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        # A service account may also sign its tokens itself: three parts, which the API would verify.
        if kind != "Bearer" or (token != TOKEN and token.count(".") != 2):
            message = "Request had invalid authentication credentials."
            _send(request, 401, _error(Refused(401, "UNAUTHENTICATED", message)))
            return
        if fault == "dropped":
            _hang_up(request)
            return
        try:
            if fault == "429":
                raise Refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'requests' per minute.")
            if fault == "503":
                raise Refused(503, "UNAVAILABLE", "The service is currently unavailable.")
            if fault == "denied":
                raise Refused(403, "PERMISSION_DENIED", "Permission 'tpu.nodes.create' denied.")
            with self.lock:
                told = self.cloud.handle(request.command, resource, dict(parse_qsl(address.query)), body)
                text = json.dumps(told)
        except Refused as refused:
            _send(request, refused.http, _error(refused))
            return
        if fault == "lost":
            _hang_up(request)
            return
        _send(request, 200, json.loads(text))


@contextmanager
def emulated(
    zones: dict[str, Zone], fault: Callable[[str, str], Fault | None] = lambda method, path: None
) -> Iterator[tuple[Emulator, VirtualClock]]:
    """A server and its clock, for a while."""
    clock = VirtualClock()
    emulator = Emulator(clock, zones, fault)
    try:
        yield emulator, clock
    finally:
        emulator.close()


def _error(refused: Refused) -> dict[str, Any]:
    return {"error": {"code": refused.http, "message": refused.message, "status": refused.status}}


def _send(request: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json; charset=UTF-8")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def _hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    request.connection.close()
