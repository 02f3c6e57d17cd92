"""Serves `/metrics` to Prometheus, from a thread of its own."""

import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line each."""


class MetricsServer:
    """Answers scrapes until it is closed.

    Args:
        collector: makes the metrics at each scrape.
        address: where it listens.
        port: 0 for any that is free.

    Raises:
        OSError: the port is taken, or the address is not this machine's.

    Attributes:
        url: where Prometheus finds it.
    """

    def __init__(self, collector: Collector, address: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        app = make_wsgi_app(registry)
        self._server = make_server(address, port, app, _Server, handler_class=_Silent)
        host, number = self._server.server_address[:2]
        self.url = f"http://{host}:{number}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
