"""Load on a gRPC server from a client that costs next to nothing itself: h2load (Debian package nghttp2-client).

A client in Python needs more than a core for what a server on two cores answers, so that it would measure itself.
h2load knows nothing of gRPC's statuses; what was answered is counted by the server's own metrics, and a deadline goes
with each request.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import urllib.request
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
        grpc_address, rest_address: Of the server.
        request: The message.
        deadline_s: Of each request.

    Raises:
        SystemExit: h2load is not installed.
    """

    def __init__(self, grpc_address: str, rest_address: str, request: Any, deadline_s: float) -> None:
        if shutil.which("h2load") is None:
            raise SystemExit("there is no h2load: install the package nghttp2-client")
        self._url, self._metrics = f"http://{grpc_address}/{METHOD}", f"http://{rest_address}/metrics"
        message = request.SerializeToString()
        self._body = b"\0" + struct.pack(">I", len(message)) + message  # gRPC's framing: not compressed, length
        headers = ("content-type: application/grpc", "te: trailers", f"grpc-timeout: {int(1000 * deadline_s)}m")
        self._headers = [word for header in headers for word in ("--header", header)]

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
            command = ["h2load", "--data", body.name, *self._headers, "--duration", str(seconds), "--threads", "1"]
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
