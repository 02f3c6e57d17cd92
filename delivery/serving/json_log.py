"""What happened, as Google Cloud Logging reads it: one JSON object a line, never what was sent or answered.

The fields that it takes out of the object and shows by itself are listed in
https://docs.cloud.google.com/logging/docs/structured-logging; all others are for queries. Any other collector of JSON
lines reads them as well.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pythonjsonlogger.json import JsonFormatter

from delivery.serving.line_writer import LineWriter

if TYPE_CHECKING:
    from delivery.serving.gateway import Call

_FIELD = "logging.googleapis.com/"
_LABELS = f"{_FIELD}labels"
_BETWEEN = '","'
# Of Python's fields; Error Reporting looks for stacks under this name.
_NAMES = {"levelname": "severity", "name": "logger", "exc_info": "stack_trace"}
MOST_TRACES = 100
"""That are named of one batch."""
_OURS = frozenset(("INTERNAL", "UNKNOWN", "DATA_LOSS"))
_encode = json.JSONEncoder(separators=(",", ":")).encode


class JsonLogError(ValueError):
    """The log cannot be written. The message is one sentence for who runs the server."""


@dataclass
class HttpRequest:
    """What a REST request looks like from outside.

    Attributes:
        method: GET or POST.
        path: Without what follows a question mark.
        protocol: As HTTP/1.1.
        remote: Address of the client, or of the proxy before it.
        user_agent: As it says.
        request_bytes, response_bytes: Of the bodies; the answer's is 0 where it is a refusal.
    """

    method: str
    path: str
    protocol: str
    remote: str
    user_agent: str
    request_bytes: int = 0
    response_bytes: int = 0


class JsonLog:
    """Writes one line a request, one a batch and one for each record of Python's own logging.

    Args:
        path: Of the file; None: standard error.
        project: Of Google Cloud, which traces are named after there; None: traces have their ids alone.

    Raises:
        JsonLogError: The file cannot be written.
    """

    def __init__(self, path: Path | None, project: str | None = None) -> None:
        self._prefix = f"projects/{project}/traces/" if project else ""
        self._clock = _Clock()
        try:
            self._lines = LineWriter(path, self._lost)
        except OSError as error:
            message = f"json_log={path} cannot be written ({error.strerror}): name a file that you may write"
            raise JsonLogError(message) from None

    def request(self, call: Call, code: str, http_status: int, seconds: float) -> None:
        """A request has been answered or refused.

        Args:
            call: Itself.
            code: gRPC's name of the outcome.
            http_status: The same in HTTP.
            seconds: It took.
        """
        trace, http = call.trace, call.http
        # Put together from pieces: to encode an object anew would take five times as long, at every request.
        line = (
            f'{{"time":"{self._clock.now()}",{_known(call.method, call.protocol, code, call.client)}'
            f',{_labels(call.model, call.version)},"seconds":{seconds:.6f},"{_FIELD}spanId":"{trace.span}"'
            f',"{_FIELD}trace":"{self._prefix}{trace.id}"'
        )
        if trace.parent:
            line += f',"parent_span":"{trace.parent}"'
        if trace.sampled:
            line += f',"{_FIELD}trace_sampled":true'
        if http is not None:
            # Sizes are numbers of 64 bits, which Google's JSON writes as strings.
            line += (
                f',"httpRequest":{{{_client(http.method, http.path, http.protocol, http.remote, http.user_agent)}'
                f',"status":{http_status},"latency":"{seconds:.6f}s"'
                f',"requestSize":"{http.request_bytes}","responseSize":"{http.response_bytes}"}}'
            )
        self._lines.write(line + "}\n")

    def batch(self, model: str, version: int, rows: int, seconds: float, traces: Iterable[str]) -> None:
        """A batch has been computed.

        Args:
            model: Its name.
            version: Its version.
            rows: Without padding.
            seconds: It took.
            traces: Ids of the requests in it; the first `MOST_TRACES` are named.
        """
        found = list(dict.fromkeys(trace for trace in traces if trace))
        named = f'"{_BETWEEN.join(found[:MOST_TRACES])}"' if found else ""
        self._lines.write(
            f'{{"time":"{self._clock.now()}","severity":"INFO","message":"batch",{_labels(model, str(version))}'
            f',"rows":{rows},"seconds":{seconds:.6f},"requests":{len(found)},"traces":[{named}]}}\n'
        )

    def _lost(self, count: int) -> str:
        facts = {"severity": "WARNING", "time": self._clock.now(), "message": "lines of this log were lost"}
        return _encode({**facts, "lost": count}) + "\n"

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Takes what is logged in this process meanwhile, and writes all of it at the end."""
        root, handler = logging.getLogger(), _Records(self._lines, _RecordFormatter(self._prefix, self._clock))
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)
            self._lines.close()


class _Clock:
    """The time as RFC 3339 writes it, to the microsecond; the part to the second is made once a second."""

    def __init__(self) -> None:
        self._made = (-1, "")

    def now(self) -> str:
        micros = time.time_ns() // 1000
        second = micros // 1_000_000
        made, text = self._made
        if second != made:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._made = (second, text)  # at once: other threads tell the time too
        return f"{text}.{micros % 1_000_000:06d}Z"


class _Records(logging.Handler):
    def __init__(self, lines: LineWriter, formatter: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class _RecordFormatter(JsonFormatter):
    """A record with all that was logged beside its message."""

    def __init__(self, prefix: str, clock: _Clock) -> None:
        super().__init__("%(levelname)s%(message)s%(name)s", rename_fields=_NAMES)
        self._prefix, self._clock = prefix, clock

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Puts the model and its version where Cloud Logging looks for labels."""
        facts = {key: value for key, value in log_data.items() if value is not None}
        facts.pop("color_message", None)  # uvicorn's, for terminals
        if trace := facts.pop("trace", ""):
            facts[f"{_FIELD}trace"] = self._prefix + trace
        if "model" in facts:
            names = {"model": facts.pop("model"), "version": str(facts.pop("version", ""))}
            facts[_LABELS] = {name: value for name, value in names.items() if value}
        return {"time": self._clock.now(), **facts}

    def formatException(self, ei: Any) -> str:
        """Where it happened and of what kind it is. Its message may quote what a client sent, and is left out."""
        kind: type[BaseException] | None = ei[0]
        place: TracebackType | None = ei[2]
        return "".join(traceback.format_tb(place)) + (kind.__name__ if kind else "")


@lru_cache(1024)
def _known(method: str, protocol: str, code: str, client: str) -> str:
    severity = "INFO" if code == "OK" else "ERROR" if code in _OURS else "WARNING"
    facts = {"severity": severity, "message": f"{method} {code}", "method": method, "protocol": protocol, "code": code}
    return _inner(facts | ({"client": client} if client else {}))


@lru_cache(1024)
def _labels(model: str, version: str) -> str:
    return _inner({_LABELS: {"model": model} | ({"version": version} if version else {})})


@lru_cache(1024)
def _client(method: str, path: str, protocol: str, remote: str, user_agent: str) -> str:
    facts = {"requestMethod": method, "requestUrl": path, "protocol": protocol, "remoteIp": remote}
    return _inner({**facts, "userAgent": user_agent})


def _inner(facts: dict[str, Any]) -> str:
    """The members of an object without its braces."""
    return _encode(facts)[1:-1]
