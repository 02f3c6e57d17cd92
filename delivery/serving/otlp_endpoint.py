"""Where spans are sent to: OpenTelemetry's own variables, and the rules that an address of OTLP over HTTP keeps to.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")


def endpoint_in(environment: Mapping[str, str]) -> str | None:
    """The address that the variables name; None: none, or they turn spans off.

    Raises:
        ValueError: They ask for another protocol than OTLP over HTTP with protobuf.

    >>> endpoint_in({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    'http://collector:4318/v1/traces'
    >>> endpoint_in({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/mine"})
    'http://collector:4318/mine'
    """
    if is_off(environment):
        return None
    base, traces = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"), environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    endpoint = traces or (f"{base.rstrip('/')}/v1/traces" if base else None)
    if endpoint is None:
        return None
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(name):
            if protocol != "http/protobuf":
                raise ValueError(
                    f"{name}={protocol}, and spans are sent by http/protobuf alone: set it so, with the collector's "
                    "port for HTTP (4318 by custom)"
                )
            break
    return endpoint


def is_off(environment: Mapping[str, str]) -> bool:
    """Whether the variables turn spans off, whatever else names an address.

    >>> is_off({"OTEL_SDK_DISABLED": "true"}), is_off({"OTEL_TRACES_EXPORTER": "otlp"})
    (True, False)
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return True
    return environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none"


def checked(endpoint: str) -> str:
    """The same address.

    Raises:
        ValueError: It is none that spans can be posted to.
    """
    try:
        parts = urlsplit(endpoint)
        known = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        known = False
    if not known:
        raise ValueError(f"otlp_traces_endpoint={endpoint} must begin with http:// or https:// and a host")
    if parts.path in ("", "/"):
        raise ValueError(f"otlp_traces_endpoint={endpoint} has no path: add the usual /v1/traces")
    if parts.username is not None:
        raise ValueError("otlp_traces_endpoint holds a user's name: pass secrets in OTEL_EXPORTER_OTLP_HEADERS")
    return endpoint


def port_of(endpoint: str) -> int:
    """The TCP port of a checked address.

    >>> port_of("https://collector/v1/traces")
    443
    """
    parts = urlsplit(endpoint)
    return parts.port or _PORTS[parts.scheme]


def files_in(environment: Mapping[str, str]) -> Iterator[Path]:
    """Certificates that the variables name, which the connection is made with."""
    for kind in _FILES:
        for name in (f"OTEL_EXPORTER_OTLP_TRACES_{kind}", f"OTEL_EXPORTER_OTLP_{kind}"):
            if path := environment.get(name):
                yield Path(path)
