"""What a server's first request takes, beside later ones that are sent as it is.

A connection belongs to the client: it is made before a request, and has asked for the model's status, which any client
that waits for a server does. That status call is not counted, and no request comes right after the pause then.

Still a prediction that comes after a pause is slower than one of a row, at any age of the server: whatever has not run
for some milliseconds runs cold, and the direct call of the signature, with no server at all, does so too. The first
call over a new channel of gRPC's Python client is slow on the client's side besides. So the first request is compared
with later ones that come as it does, over a new connection each, from a client whose own part is next to nothing; that
client's row, the stock client and the direct call stand beside them, that one with its processor time: what it waits
for is the difference.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc

PAUSE_S = 0.1
PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW = 0, 1, 3, 4, 6, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_MOST_FRAME = 16384

Call = Callable[[], object]
Clock = Callable[[], float]
Connect = Callable[[], contextlib.AbstractContextManager[Call]]


class GrpcConnection:
    """One HTTP/2 connection that sends gRPC requests one after the other, in the bytes of RFC 9113 and 7541.

    Args:
        address: Of the server.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got, self._next = b"", 1
        self._address = address
        window = _frame(_WINDOW, 0, 0, struct.pack(">I", 1 << 30))
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"") + window)
        while self._read()[:2] != (_SETTINGS, _ACK):
            pass

    def call(self, path: str, message: bytes) -> Call:
        """What sends a request of that method, serialised, and returns its answer's message, or ends the program."""
        names = {":path": path, ":authority": self._address, "content-type": "application/grpc", "te": "trailers"}
        head = b"\x83\x86" + b"".join(_field(name, value) for name, value in names.items())  # POST, http
        body = b"\0" + struct.pack(">I", len(message)) + message
        return lambda: self._ask(head, [body[at : at + _MOST_FRAME] for at in range(0, len(body), _MOST_FRAME)])

    def _ask(self, head: bytes, parts: list[bytes]) -> bytes:
        stream, self._next = self._next, self._next + 2
        frames = [_frame(_DATA, _END_STREAM if part is parts[-1] else 0, stream, part) for part in parts]
        self._socket.sendall(_frame(_HEADERS, _END_HEADERS, stream, head) + b"".join(frames))
        answer = b""
        while True:
            kind, flags, of, payload = self._read()
            if of == stream and kind == _DATA:
                answer += payload
            elif of == stream and (kind == _RESET or (kind == _HEADERS and flags & _END_STREAM)):
                if not answer:
                    raise SystemExit("a request was refused over gRPC")
                return answer[5:]

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _read(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame."""
        while len(self._got) < 9 or len(self._got) < 9 + int.from_bytes(self._got[:3], "big"):
            if not (part := self._socket.recv(65536)):
                raise SystemExit("the server closed the connection")
            self._got += part
        end = 9 + int.from_bytes(self._got[:3], "big")
        kind, flags, stream = self._got[3], self._got[4], int.from_bytes(self._got[5:9], "big")
        payload, self._got = self._got[9:end], self._got[end:]
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        return kind, flags, stream, payload


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _field(name: str, value: str) -> bytes:
    """A literal header field that is not indexed."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _status_request() -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()  # type: ignore[attr-defined]
    request.model_spec.name = "mnist"
    return request


def stock_channel(address: str, request: Any) -> contextlib.AbstractContextManager[Call]:
    """A call over a new channel of gRPC's Python client, which has asked for the status."""

    @contextlib.contextmanager
    def connected():
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            grpc.channel_ready_future(channel).result(30)
            model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(_status_request(), timeout=30)
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            yield lambda: predict(request, timeout=30)

    return connected()


def grpc_connection(address: str, request: Any) -> contextlib.AbstractContextManager[Call]:
    """A call over a new connection, which has asked for the status."""

    @contextlib.contextmanager
    def connected():
        with contextlib.closing(GrpcConnection(address)) as connection:
            connection.call(STATUS, _status_request().SerializeToString())()
            yield connection.call(PREDICT, request.SerializeToString())

    return connected()


def rest_connection(address: str, body: bytes) -> contextlib.AbstractContextManager[Call]:
    """A call over a new HTTP connection, which has asked for the status."""

    @contextlib.contextmanager
    def connected():
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.connect()

        def call(method: str, path: str, body: bytes | None) -> None:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"REST answered {answer.status}")

        with contextlib.closing(connection):
            call("GET", "/v1/models/mnist", None)
            yield lambda: call("POST", "/v1/models/mnist:predict", body)

    return connected()


def paced(connect: Connect, times: int, clock: Clock = time.perf_counter) -> list[float]:
    """Milliseconds of requests that come after a pause, over a new connection each."""
    found = []
    for _ in range(times):
        time.sleep(PAUSE_S)
        with connect() as call:
            found.append(_milliseconds(call, clock))
    return found


def in_a_row(connect: Connect, times: int, clock: Clock = time.perf_counter) -> list[float]:
    """Milliseconds of requests that follow each other over one connection."""
    with connect() as call:
        return [_milliseconds(call, clock) for _ in range(times)]


def _milliseconds(call: Call, clock: Clock) -> float:
    started = clock()
    call()
    return 1000 * (clock() - started)


def summary(first: list[float], later: list[float], row: list[float]) -> dict[str, Any]:
    """The first requests, and the medians of the others."""
    return {"first": first, "paced_p50": statistics.median(later), "in_a_row_p50": statistics.median(row)}
