"""What passes between a training process and a service worker, and what is refused."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from cluster.data_service.block import Block
from cluster.data_service.server import BlockServer
from cluster.data_service.wire import NotAnswered, WireFault, connect
from cluster.reserved_port import split_address
from tests.cluster.data_service.squares import KEY, read

PATIENCE_S = 30.0


@contextlib.contextmanager
def serving(answer=read) -> Iterator[BlockServer]:
    server = BlockServer("data-1", "127.0.0.1", KEY, answer)
    try:
        yield server
    finally:
        server.close()


def test_arrays_of_all_shapes_and_types_arrive_as_they_were():
    sent = {
        "pixels": np.random.default_rng(0).integers(0, 255, (2, 3, 224, 224, 3)).astype(np.uint8),
        "scalar": np.float32(0.1) * np.ones(()),
        "empty": np.zeros((4, 0), np.int32),
        "turned": np.arange(12, dtype=np.float64).reshape(3, 4).T,
        "flags": np.array([True, False]),
    }
    with serving(lambda request: Block(sent, [request["first"]])) as server:
        connection = connect(server.address, KEY, "data-1", PATIENCE_S)
        for first in (3, 4):
            arrays, notes = connection.ask({"first": first})
            assert notes == [first] and list(arrays) == list(sent)
            for name, array in arrays.items():
                assert array.dtype == sent[name].dtype and np.array_equal(array, sent[name])
                assert not array.size or array.ctypes.data % 64 == 0, "TensorFlow would have to copy it"
        connection.close()


def test_a_request_that_cannot_be_answered_costs_no_connection():
    with serving() as server:
        connection = connect(server.address, KEY, "data-1", PATIENCE_S)
        with pytest.raises(NotAnswered, match="ValueError: there is no block -1"):
            connection.ask({"number": -1})
        assert connection.ask({"number": 3}).arrays["square"].max() == 9
        connection.close()


def test_an_object_is_never_sent():
    with serving(lambda request: Block({"x": np.array([{}], object)})) as server:
        connection = connect(server.address, KEY, "data-1", PATIENCE_S)
        with pytest.raises(NotAnswered, match="an array of object cannot be sent"):
            connection.ask({})
        connection.close()


@pytest.mark.parametrize(("key", "worker"), [(bytes(32), "data-1"), (KEY, "data-2")], ids=["key", "name"])
def test_another_key_or_another_name_is_refused(key, worker):
    with serving() as server, pytest.raises(OSError):
        connect(server.address, key, worker, PATIENCE_S)


def test_whoever_lists_itself_gets_no_request_without_the_key():
    """A stranger's address in the list of workers: what answers there must prove itself first."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def answer() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(bytes(64))
                heard.append(connection.recv(4096))

        heard: list[bytes] = []
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(WireFault, match="is not data service worker data-1 of this run"):
            connect(f"127.0.0.1:{stranger.getsockname()[1]}", KEY, "data-1", PATIENCE_S)
        thread.join()
    assert heard == [b""]


def test_meaningless_bytes_do_not_disturb_the_others():
    with serving() as server:
        with socket.create_connection(split_address(server.address)) as stranger:
            stranger.settimeout(PATIENCE_S)
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
        connection = connect(server.address, KEY, "data-1", PATIENCE_S)
        assert connection.ask({"number": 2}).arrays["square"].max() == 4
        connection.close()


def test_a_bit_that_changes_on_the_way_is_found():
    """A relay changes one byte of the block; the handshake passes through it."""
    with serving() as server, socket.create_server(("127.0.0.1", 0)) as relay:

        def pass_on() -> None:
            inner, _ = relay.accept()
            outer = socket.create_connection(split_address(server.address))

            def back() -> None:
                with contextlib.suppress(OSError):
                    while data := bytearray(outer.recv(1 << 16)):
                        if (place := data.find((49).to_bytes(8, "little") * 6)) >= 0:
                            data[place + 9] ^= 1
                        inner.sendall(data)

            thread = threading.Thread(target=back, daemon=True)
            thread.start()
            with contextlib.suppress(OSError), inner, outer:
                while data := inner.recv(1 << 16):
                    outer.sendall(data)
                outer.shutdown(socket.SHUT_RDWR)
                thread.join()

        threading.Thread(target=pass_on, daemon=True).start()
        connection = connect(f"127.0.0.1:{relay.getsockname()[1]}", KEY, "data-1", PATIENCE_S)
        assert connection.ask({"number": 5}).arrays["square"].max() == 25
        with pytest.raises(WireFault, match="checksum"):
            connection.ask({"number": 7})
        connection.close()
