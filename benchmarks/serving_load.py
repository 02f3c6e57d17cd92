"""Load on a server from a client that costs next to nothing itself: h2load (Debian package nghttp2-client).

A client in Python needs more than a core for what a server on two cores answers, so that it would measure itself.
h2load knows nothing of gRPC's statuses, so the server's own metrics say how many were answered over gRPC, where a
deadline goes with each request. Over REST the client counts those that came with 200 within the deadline: what the
server does not know is how long a request has waited before it was read.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import urllib.request
from pathlib import Path
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
    """Sends one request again and again over gRPC.

    Args:
        grpc_address, rest_address: Of the server.
        request: The message.
        deadline_s: Of each request.

    Raises:
        SystemExit: h2load is not installed.
    """

    def __init__(self, grpc_address: str, rest_address: str, request: Any, deadline_s: float) -> None:
        self._url, self._metrics = f"http://{grpc_address}/{METHOD}", f"http://{rest_address}/metrics"
        message = request.SerializeToString()
        self._body = b"\0" + struct.pack(">I", len(message)) + message  # gRPC's framing: not compressed, length
        self._headers = ("content-type: application/grpc", "te: trailers", f"grpc-timeout: {int(1000 * deadline_s)}m")

    def in_flight(self, connections: int, streams: int, seconds: int) -> Load:
        """So many requests on their way all the time."""
        return self._run(connections, seconds, "--max-concurrent-streams", str(streams))

    def at_rate(self, rate: float, connections: int, seconds: int) -> Load:
        """So many requests a second, whatever comes back, as far as the server takes them."""
        return self._run(connections, seconds, "--max-concurrent-streams", "1000", "--rps", f"{rate / connections:.0f}")

    def _run(self, connections: int, seconds: int, *options: str) -> Load:
        before = self._answered()
        said = h2load(self._url, self._body, self._headers, connections, seconds, *options)
        return Load(said, (self._answered() - before) / seconds)

    def _answered(self) -> float:
        with urllib.request.urlopen(self._metrics, timeout=30) as answer:
            return sum(map(float, _COUNTED.findall(answer.read().decode())))


class RestFlood:
    """Sends one request again and again over REST; each connection has one on its way.

    Args:
        rest_address: Of the server.
        body: Of the request.
        deadline_s: Of each request.

    Raises:
        SystemExit: h2load is not installed.
    """

    def __init__(self, rest_address: str, body: bytes, deadline_s: float) -> None:
        self._url, self._body, self._deadline_s = f"http://{rest_address}/v1/models/mnist:predict", body, deadline_s
        self._headers = ("content-type: application/json", f"x-request-timeout-ms: {int(1000 * deadline_s)}")

    def at_rate(self, rate: float | None, connections: int, seconds: int) -> Load:
        """So many requests a second (None: as many as come back), as far as the connections let them."""
        options = () if rate is None else ("--rps", f"{max(1, round(rate / connections))}")
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "requests"
            written = ("--h1", "--log-file", str(log), *options)
            offered = h2load(self._url, self._body, self._headers, connections, seconds, *written)
            # Each line: when it was sent, the status, the microseconds until its answer.
            lines = [line.split() for line in log.read_text().splitlines()]
        in_time = sum(status == "200" and int(took) <= 1e6 * self._deadline_s for _, status, took in lines)
        return Load(offered, in_time / seconds)


def h2load(url: str, body: bytes, headers: tuple[str, ...], connections: int, seconds: int, *options: str) -> float:
    """Runs it; returns the requests a second that it has ended.

    Raises:
        SystemExit: It is not installed.
    """
    if shutil.which("h2load") is None:
        raise SystemExit("there is no h2load: install the package nghttp2-client")
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        given = [word for header in headers for word in ("--header", header)]
        command = ["h2load", "--data", file.name, *given, "--duration", str(seconds), "--threads", "1"]
        done = subprocess.run(
            [*command, "--clients", str(connections), *options, url],
            check=True, capture_output=True, text=True, timeout=seconds + 60,
        )  # fmt: skip
    found = _FINISHED.search(done.stdout)
    assert found, done.stdout
    return float(found[1])
