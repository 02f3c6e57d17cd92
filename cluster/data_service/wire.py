"""A connection between a training process and a service worker: proved on both sides, with frames that are checked.

The proof and the frames are the process group's: whoever does not know the run's key gets no block and can give none.
Nothing that is received is code: a request and a description are JSON, a block is bytes with a type and a shape.
"""

import contextlib
import json
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any

import google_crc32c
import numpy as np

from cluster.data_service.block import Block, Request
from cluster.process_group.frames import HEADER_BYTES, Header, pack_header, unpack_header
from cluster.process_group.proof import ANSWER_BYTES, HELLO_BYTES, PROOF_BYTES, Hello, Proof, name_digest
from cluster.reserved_port import split_address

HANDSHAKE_S = 10.0
_REQUEST, _DESCRIPTION, _ARRAY, _FAILURE = range(4)
_LARGEST_JSON = 16 << 20
_LARGEST_ARRAY = 8 << 30
# TensorFlow takes memory over without a copy where it begins at a multiple of this.
_ALIGNMENT = 64


class WireFault(OSError):
    """What came over a connection is not what a process of this run sends."""


class NotAnswered(Exception):
    """The worker could not read the block. The message says why."""


class BlockConnection:
    """One end of a connection. Use it from one thread at a time.

    Args:
        connection: a connected stream socket with a time limit, which belongs to this object from now on.
        send_key, receive_key: of the frames in each direction.
    """

    def __init__(self, connection: socket.socket, send_key: bytes, receive_key: bytes) -> None:
        self._connection = connection
        self._send_key, self._receive_key = send_key, receive_key
        self._num_sent = self._num_received = 0

    def ask(self, request: Request) -> Block:
        """Has the other end read a block.

        Raises:
            NotAnswered: it could not.
            OSError: it is gone, or does not answer within the connection's time limit.
        """
        self._send(_REQUEST, json.dumps(request).encode())
        kind, data = self._receive_json((_DESCRIPTION, _FAILURE))
        if kind == _FAILURE:
            raise NotAnswered(str(data))
        return self._receive_arrays(data)

    def serve(self, answer: Callable[[Request], Block]) -> None:
        """Answers one request. A request that cannot be answered is not the connection's fault.

        Raises:
            OSError: the other end is gone.
        """
        _, request = self._receive_json((_REQUEST,))
        try:
            block = answer(request)
            described = [[name, array.dtype.str, array.shape] for name, array in block.arrays.items()]
            arrays = [_bytes_of(array) for array in block.arrays.values()]
            description = json.dumps({"arrays": described, "notes": block.notes}).encode()
        except Exception as error:
            self._send(_FAILURE, json.dumps(f"{type(error).__name__}: {error}"[:4096]).encode())
            return
        self._send(_DESCRIPTION, description)
        for array in arrays:
            self._send(_ARRAY, array)

    def set_patience(self, seconds: float | None) -> None:
        """Seconds that each piece of a frame may take from now on; None: for ever."""
        self._connection.settimeout(seconds)

    def close(self) -> None:
        """Ends the connection, also for a thread that waits for it."""
        with contextlib.suppress(OSError):  # the other end was faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _send(self, kind: int, payload: bytes | np.ndarray) -> None:
        checksum = google_crc32c.value(payload) if len(payload) else 0
        header = Header(kind, 0, 0, 0, len(payload), checksum)
        self._connection.sendall(pack_header(header, self._send_key, self._num_sent))
        self._num_sent += 1
        if len(payload):
            self._connection.sendall(payload if isinstance(payload, bytes) else payload.data)

    def _receive_header(self, kinds: Sequence[int], largest: int) -> Header:
        data = receive_exactly(self._connection, HEADER_BYTES)
        header = unpack_header(data, self._receive_key, self._num_received)
        self._num_received += 1
        if header is None or header.kind not in kinds or header.num_bytes > largest:
            raise WireFault("a frame is damaged, forged, or not the one that was expected")
        return header

    def _receive_json(self, kinds: Sequence[int]) -> tuple[int, Any]:
        header = self._receive_header(kinds, _LARGEST_JSON)
        data = bytes(receive_exactly(self._connection, header.num_bytes))
        _check(header, data)
        try:
            return header.kind, json.loads(data)
        except ValueError:
            raise WireFault("a frame does not hold JSON") from None

    def _receive_arrays(self, description: Any) -> Block:
        arrays = {}
        try:
            described = [
                (str(name), np.dtype(kind), tuple(map(int, shape))) for name, kind, shape in description["arrays"]
            ]
            notes = description["notes"]
        except (TypeError, ValueError, KeyError):
            raise WireFault("a block's description is none") from None
        for name, dtype, shape in described:
            size = math.prod(shape) * dtype.itemsize
            if dtype.hasobject or size < 0:
                raise WireFault(f"array {name!r} of a block has no type that can be sent")
            header = self._receive_header((_ARRAY,), min(size, _LARGEST_ARRAY))
            if header.num_bytes != size:
                raise WireFault(f"array {name!r} of a block has {header.num_bytes} bytes and not {size}")
            memory = aligned_bytes(size)
            _receive_into(self._connection, memory.data)
            _check(header, memory)
            arrays[name] = memory.view(dtype).reshape(shape)
        return Block(arrays, notes)


def connect(address: str, key: bytes, worker: str, patience_s: float) -> BlockConnection:
    """Connects to a service worker.

    Args:
        address: the worker's.
        key: the run's, for its data service.
        worker: the worker's name.
        patience_s: seconds that each piece of an answer may take.

    Raises:
        OSError: nobody answers there, or somebody else.
    """
    connection = socket.create_connection(split_address(address), HANDSHAKE_S)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = Hello.to(worker, "training", 0)
        connection.sendall(hello.pack())
        proof = Proof.of_answer(key, hello, bytes(receive_exactly(connection, ANSWER_BYTES)))
        if proof is None:
            raise WireFault(f"what answers at {address} is not data service worker {worker} of this run")
        connection.sendall(proof.confirmation())
        connection.settimeout(patience_s)
    except BaseException:
        connection.close()
        raise
    return BlockConnection(connection, *proof.frame_keys())


def accept(connection: socket.socket, key: bytes, worker: str) -> BlockConnection:
    """Has whoever connected prove that it is a training process of this run; the caller closes it after an error.

    Args:
        worker: this worker's name.

    Raises:
        OSError: it is none, or has gone.
    """
    connection.settimeout(HANDSHAKE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hello = Hello.unpack(bytes(receive_exactly(connection, HELLO_BYTES)))
    if hello is None or hello.receiver != name_digest(worker):
        raise WireFault("whoever connected looks for somebody else")
    proof = Proof.new(key, hello)
    connection.sendall(proof.answer())
    if not proof.is_confirmed(bytes(receive_exactly(connection, PROOF_BYTES))):
        raise WireFault("whoever connected does not know this run's key")
    connection.settimeout(None)
    theirs, ours = proof.frame_keys()
    return BlockConnection(connection, ours, theirs)


def receive_exactly(connection: socket.socket, size: int) -> bytearray:
    """So many bytes.

    Raises:
        OSError: the other end is gone, or silent for too long.
    """
    data = bytearray(size)
    _receive_into(connection, memoryview(data))
    return data


def aligned_bytes(size: int) -> np.ndarray:
    """Memory of so many bytes, uint8 [size], not filled, that TensorFlow takes over without a copy."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """Its memory, uint8.

    Raises:
        TypeError: it holds objects, which are never sent.
    """
    if array.dtype.hasobject:
        raise TypeError(f"an array of {array.dtype} cannot be sent")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _receive_into(connection: socket.socket, view: memoryview) -> None:
    while len(view):
        received = connection.recv_into(view)
        if not received:
            raise ConnectionResetError("the other end has gone")
        view = view[received:]


def _check(header: Header, payload: bytes | np.ndarray) -> None:
    if header.num_bytes and google_crc32c.value(payload) != header.checksum:
        raise WireFault("a frame does not have its checksum: it was damaged on the way")
