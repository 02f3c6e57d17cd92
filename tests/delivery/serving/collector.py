"""A collector of OpenTelemetry's, as far as OTLP over HTTP goes: it keeps the spans that are posted to it."""

import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Collector:
    """Listens on a free port of this machine until it is closed."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, ExportTraceServiceRequest, dict[str, str]]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    content = gzip.decompress(content)
                message = ExportTraceServiceRequest.FromString(content)
                # Before the answer: whoever has it may look at once.
                headers = {name.lower(): value for name, value in self.headers.items()}
                collector.posted.append((self.path, message, headers))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def spans(self) -> list:
        """All of them so far."""
        return [
            span
            for _, message, _ in self.posted
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait_for(self, found: Callable[[list], bool]) -> list:
        """The spans, once they are what is waited for."""
        end = time.monotonic() + 30
        while not found(spans := self.spans()):
            assert time.monotonic() < end, f"not sent: {[span.name for span in spans]}"
            time.sleep(0.02)
        return spans

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def attributes(message) -> dict[str, str | int]:
    """Of a span or a resource."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in message.attributes}
