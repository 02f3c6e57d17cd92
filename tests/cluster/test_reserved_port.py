import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from cluster.reserved_port import ReservedPort, split_address
from tests.cluster.agent_workers import ROOT


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


HOSTS = ["127.0.0.1", *(["::1", "[::1]"] if has_ipv6() else [])]


@contextmanager
def server(host: str, port: int, shares: bool = True) -> Iterator[socket.socket]:
    """A listening socket, as gRPC makes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
        listening.bind((host, port))
        listening.listen()
        listening.settimeout(10)
        yield listening


def talk(listening: socket.socket, host: str, port: int) -> bytes:
    with socket.create_connection((host.strip("[]"), port), timeout=10) as client:
        accepted, _ = listening.accept()
        with accepted:
            client.sendall(b"hello")
            return accepted.recv(16)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_server_takes_the_port_over_and_gets_every_connection(host: str, everywhere: bool):
    with ReservedPort(host) as reserved:
        at = ("::" if ":" in host else "0.0.0.0") if everywhere else reserved.host
        with server(at, reserved.port) as listening:
            assert [talk(listening, host, reserved.port) for _ in range(50)] == [b"hello"] * 50
        # It is still reserved: the server may start again.
        with server(at, reserved.port) as listening:
            reserved.close()
            reserved.close()
            assert talk(listening, host, reserved.port) == b"hello"


@pytest.mark.processes
def test_tensorflows_server_takes_a_reserved_port_over():
    # Of its own accord it binds without sharing, and fails.
    script = """
import os, sys
from cluster.reserved_port import TENSORFLOW_SHARES_PORTS, ReservedPort
name, value = TENSORFLOW_SHARES_PORTS
os.environ[name] = value
import tensorflow as tf
with ReservedPort("127.0.0.1") as reserved:
    server = tf.distribute.Server({"worker": [reserved.address]}, job_name="worker", task_index=0)
    print("took over", server.target == f"grpc://{reserved.address}", flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert "took over True" in done.stdout, done.stderr


@pytest.mark.parametrize("host", HOSTS)
def test_nobody_else_gets_the_port(host: str):
    with ReservedPort(host) as reserved:
        for other in HOSTS:
            with pytest.raises(OSError) as caught, server(other.strip("[]"), reserved.port, shares=False):
                pass
            assert caught.value.errno == errno.EADDRINUSE
        assert socket.socket().connect_ex(("127.0.0.1", reserved.port)) == errno.ECONNREFUSED


def test_reservations_never_collide_with_each_other_or_with_any_free_port():
    with ExitStack() as stack:
        ports = [stack.enter_context(ReservedPort(HOSTS[n % len(HOSTS)])).port for n in range(300)]
        ports += [stack.enter_context(server("127.0.0.1", 0)).getsockname()[1] for _ in range(50)]
        ports += [stack.enter_context(server("127.0.0.1", 0, shares=False)).getsockname()[1] for _ in range(50)]
        assert len(set(ports)) == 400


@pytest.mark.parametrize("host", HOSTS)
def test_the_address_reads_back(host: str):
    with ReservedPort(host) as reserved:
        assert split_address(reserved.address) == (host.strip("[]"), reserved.port)
        assert reserved.address.startswith("[::1]:" if ":" in host else "127.0.0.1:")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1:80", "host:http", ":80", "[::1]"])
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(ValueError, match="is not an address: write host:port"):
        split_address(address)


def test_an_address_of_another_host_is_refused_at_once():
    with pytest.raises(ValueError, match=r"192\.0\.2\.1 is not an address of this host"):
        ReservedPort("192.0.2.1")
    with pytest.raises(ValueError, match=r"nowhere\.invalid cannot be resolved"):
        ReservedPort("nowhere.invalid")


def test_a_host_without_ipv6_reserves_all_the_same(monkeypatch: pytest.MonkeyPatch):
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *arguments: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *arguments)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with ReservedPort("127.0.0.1") as reserved:
        monkeypatch.undo()
        with server("127.0.0.1", reserved.port) as listening:
            assert talk(listening, "127.0.0.1", reserved.port) == b"hello"
