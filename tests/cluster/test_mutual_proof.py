import socket
import threading
from contextlib import suppress

import pytest

from cluster.mutual_proof import ProofFailed, accept, connect, new_secret


def meet(agent_secret: str, launcher_secret: str) -> tuple[object, object]:
    """What becomes of an agent that connects to a launcher: each end's result, or its error."""
    results: dict[str, object] = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def launch() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    results["launcher"] = accept(connection, launcher_secret, 2.0)
                except (ProofFailed, OSError) as error:
                    results["launcher"] = error

        thread = threading.Thread(target=launch)
        thread.start()
        try:
            with connect(address, agent_secret, "node1", 2.0) as connection:
                results["agent"] = connection
        except (ProofFailed, OSError) as error:
            results["agent"] = error
        thread.join()
    return results["agent"], results["launcher"]


def test_both_ends_with_the_secret_agree_on_the_name():
    secret = new_secret()
    agent, launcher = meet(secret, secret)
    assert isinstance(agent, socket.socket)
    assert launcher == "node1"


def test_neither_end_takes_one_with_another_secret():
    agent, launcher = meet(new_secret(), new_secret())
    assert isinstance(agent, ProofFailed)
    assert isinstance(launcher, ProofFailed)


@pytest.mark.parametrize("says", [b"", b"hello\n", b"[]\n", b"x" * 100_000])
def test_whoever_says_anything_else_is_refused(says: bytes):
    near, far = socket.socketpair()

    def say() -> None:
        with suppress(OSError):  # it was refused before all was said
            far.sendall(says)
            far.shutdown(socket.SHUT_WR)

    with near, far:
        threading.Thread(target=say, daemon=True).start()
        with pytest.raises((ProofFailed, OSError)):
            accept(near, new_secret(), 2.0)


def test_whoever_says_nothing_is_refused_in_time():
    near, far = socket.socketpair()
    with near, far, pytest.raises(ProofFailed, match="in time"):
        accept(near, new_secret(), 0.05)


def test_an_agent_does_not_tell_a_strange_launcher_the_secret():
    secret, heard = new_secret(), b""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        failure: list[BaseException] = []

        def agent() -> None:
            try:
                connect(address, secret, "node1", 2.0)
            except ProofFailed as error:
                failure.append(error)

        thread = threading.Thread(target=agent)
        thread.start()
        connection, _ = server.accept()
        with connection:
            connection.sendall(b'{"nonce": "0"}\n')
            heard = connection.recv(4096)
            connection.sendall(b'{"proof": "0"}\n')
            thread.join()
    assert failure and secret.encode() not in heard
