"""What Prometheus is told. Every label has few values: names that clients make up never become one."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNKNOWN = "unknown"


class ServingMetrics:
    """The metrics of one server, in a registry of their own. Others may register theirs in it.

    Attributes:
        registry: What `/metrics` shows.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        one = ("model", "version")

        def name(text: str) -> str:
            return f"phalanx_serving_{text}"

        self.requests = Counter(
            name("requests"),
            "Requests answered, by gRPC code.",
            (*one, "method", "protocol", "code"),
            registry=registry,
        )
        self.seconds = Histogram(
            name("request_seconds"),
            "From a request's arrival to its answer.",
            (*one, "method", "protocol"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(name("in_flight"), "Requests being answered.", ("protocol",), registry=registry)
        self.refused = Counter(name("refused"), "Requests refused early, by reason.", ("reason",), registry=registry)
        # A counter that appears with its first count has not risen for Prometheus: rate() and increase() would miss it.
        for reason in ("queue", "rest"):
            self.refused.labels(reason)
        self.batch_rows = Histogram(
            name("batch_rows"), "Rows of a batch before padding.", one, buckets=_ROWS, registry=registry
        )
        self.batch_seconds = Histogram(
            name("batch_seconds"), "Computing a batch.", one, buckets=_SECONDS, registry=registry
        )
        self.queue_seconds = Histogram(
            name("queue_seconds"), "From a request's admission to its batch.", one, buckets=_SECONDS, registry=registry
        )
        self.queue_rows = Gauge(name("queue_rows"), "Rows that wait.", one, registry=registry)
        self.available = Gauge(name("version_available"), "1 while a version answers.", one, registry=registry)
        self.origin = Gauge(
            name("version_info"),
            "1 for a loaded version, with the run and the step it is from.",
            (*one, "run", "step"),
            registry=registry,
        )
        self.loads = Counter(name("loads"), "Versions loaded or refused.", ("model", "outcome"), registry=registry)
        self.load_seconds = Gauge(
            name("load_seconds"), "Verifying, loading and warming up a version.", one, registry=registry
        )
        self.shadow = Counter(
            name("shadow"),
            "Copies of requests, by how the shadow's answer compares.",
            (*one, "outcome"),
            registry=registry,
        )
        self.observer_errors = Counter(
            name("observer_errors"), "Batches that an observer failed on.", registry=registry
        )
        self.ready = Gauge(name("ready"), "1 while the server takes requests.", registry=registry)
        self.is_ready = False
        # labels() validates and looks up at each call: a request would spend more on it than on the count itself.
        self.requests_of = lru_cache(4096)(self.requests.labels)
        self.seconds_of = lru_cache(4096)(self.seconds.labels)

    def expect(self, model: str, version: int) -> None:
        """Shows what predictions of a version will be counted by, from 0 on: so that the first one is a rise."""
        for protocol in ("grpc", "rest"):
            self.in_flight.labels(protocol)
            labels = (model, str(version), "predict", protocol)
            self.requests_of(*labels, "OK")
            self.seconds_of(*labels)

    def set_ready(self, ready: bool) -> None:
        """Tells load balancers and Prometheus."""
        self.is_ready = ready
        self.ready.set(ready)
