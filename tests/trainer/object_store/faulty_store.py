"""A web server on loopback that gives ranges, and fails as stores do: from a seed, or when it is told to."""

import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("delay", "cut", "503", "reset", "429")


class FaultyStore:
    """The server.

    Args:
        objects: By path, without the leading slash.
        share: Of requests that fail.
        seed: Of which ones and how.
        delay_s: Of a delayed one.

    Attributes:
        requests: Answered or not, by path and range.
        faults: By kind.
        is_gone: Nothing is answered any more.
        slow_once: Ranges whose first request takes `delay_s`.
        ignores_ranges: All of an object is given, whatever is asked for.
    """

    def __init__(self, objects: Mapping[str, bytes], share: float = 0.0, seed: int = 0, delay_s: float = 0.02) -> None:
        self.objects = dict(objects)
        self.share, self.delay_s = share, delay_s
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.is_gone = self.ignores_ranges = False
        self.slow_once: set[str] = set()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._closing = threading.Event()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                store.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, asked = request.path.partition("?")[0].lstrip("/"), request.headers.get("Range", "")
        with self._lock:
            self.requests[path, asked] += 1
            is_first = self.requests[path, asked] == 1
            fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
            self.faults[fault] += 1
        if self.is_gone or fault == "reset":
            request.close_connection = True
            return
        if fault == "delay" or (asked in self.slow_once and is_first):
            self._closing.wait(self.delay_s)
        if fault in ("503", "429"):
            self._send(request, int(fault), b"busy", {})
            return
        held = self.objects.get(path)
        if held is None:
            self._send(request, 404, b"", {})
            return
        if self.ignores_ranges:
            self._send(request, 200, held, {})
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = held[int(first) : int(last) + 1]
        headers = {"Content-Range": f"bytes {first}-{last}/{len(held)}", "ETag": f'"{hash(held)}"'}
        self._send(request, 206, part, headers, cut=fault == "cut")

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str], cut: bool = False
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if cut else body)
        request.close_connection = request.close_connection or cut


@contextmanager
def faulty_store(objects: Mapping[str, bytes], **options: float) -> Iterator[FaultyStore]:
    store = FaultyStore(objects, **options)
    try:
        yield store
    finally:
        store.close()
