"""Load on a server from a client that costs next to nothing itself: h2load (Debian package nghttp2-client).

A client in Python needs more than a core for what a server on two cores answers, so that it would measure itself.
h2load knows nothing of gRPC's statuses; what was answered is counted by the server's own metrics, and a deadline goes
with each request. Over REST it speaks HTTP/1.1.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple

METHOD = "tensorflow.serving.PredictionService/Predict"
_FINISHED = re.compile(r"finished in [^,]+, ([\d.]+) req/s")
_COUNTED = re.compile(r'^phalanx_serving_requests_total\{code="OK".*\} (\S+)$', re.MULTILINE)


class Load(NamedTuple):
    """Requests a second.

    Attributes:
        offered: Sent and ended, in whatever way.
        answered: With OK, within the deadline.
    """

    offered: float
    answered: float


class Flood:
    """Sends one request again and again.

    Args:
        url: Of the method.
        rest_address: Whose metrics count.
        body: As it is sent.
        headers: Whole lines.
        options: Of h2load, for the protocol.

    Raises:
        SystemExit: h2load is not installed.
    """

    def __init__(self, url: str, rest_address: str, body: bytes, headers: Sequence[str], *options: str) -> None:
        if shutil.which("h2load") is None:
            raise SystemExit("there is no h2load: install the package nghttp2-client")
        self._url, self._metrics, self._body, self._options = url, f"http://{rest_address}/metrics", body, options
        self._headers = [word for header in headers for word in ("--header", header)]

    @classmethod
    def over_grpc(cls, grpc_address: str, rest_address: str, request: Any, deadline_s: float) -> Flood:
        """Of a PredictRequest with a deadline."""
        message = request.SerializeToString()
        body = b"\0" + struct.pack(">I", len(message)) + message  # gRPC's framing: not compressed, length
        headers = ("content-type: application/grpc", "te: trailers", f"grpc-timeout: {int(1000 * deadline_s)}m")
        return cls(f"http://{grpc_address}/{METHOD}", rest_address, body, headers)

    @classmethod
    def over_rest(cls, rest_address: str, path: str, body: bytes, deadline_s: float) -> Flood:
        """Of a JSON body with a deadline; a connection has one request on its way at a time."""
        headers = ("content-type: application/json", f"x-request-timeout-ms: {int(1000 * deadline_s)}")
        return cls(f"http://{rest_address}{path}", rest_address, body, headers, "--h1")

    def in_flight(self, connections: int, streams: int, seconds: int) -> Load:
        """So many requests on their way all the time."""
        return self._run(connections, seconds, "--max-concurrent-streams", str(streams))

    def at_rate(self, rate: float, connections: int, seconds: int) -> Load:
        """So many requests a second, whatever comes back, as far as the server takes them."""
        return self._run(connections, seconds, "--max-concurrent-streams", "1000", "--rps", f"{rate / connections:.0f}")

    def _run(self, connections: int, seconds: int, *options: str) -> Load:
        with tempfile.NamedTemporaryFile() as body:
            body.write(self._body)
            body.flush()
            command = [
                "h2load",
                "--data",
                body.name,
                *self._headers,
                "--duration",
                str(seconds),
                "--threads",
                "1",
                *self._options,
            ]
            before = self._answered()
            done = subprocess.run(
                [*command, "--clients", str(connections), *options, self._url],
                check=True, capture_output=True, text=True, timeout=seconds + 60,
            )  # fmt: skip
        found = _FINISHED.search(done.stdout)
        assert found, done.stdout
        return Load(float(found[1]), (self._answered() - before) / seconds)

    def _answered(self) -> float:
        with urllib.request.urlopen(self._metrics, timeout=30) as answer:
            return sum(map(float, _COUNTED.findall(answer.read().decode())))
