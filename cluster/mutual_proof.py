"""How an agent and its launcher make sure of each other over a network: both know a secret, which neither sends.

Whoever listens learns nothing that helps to pretend later. What is said afterwards is neither hidden nor protected, as
in a Ray cluster without TLS: a network on which others can change packets needs protection of its own.
"""

import contextlib
import hmac
import json
import secrets
import socket
import time
from typing import Any

from cluster.reserved_port import split_address

_LONGEST_LINE = 4096
_PATIENCE_S = 10.0


class ProofFailed(Exception):
    """The other end is not who it should be, or does not answer. The message says which."""


def new_secret() -> str:
    """A secret for one run."""
    return secrets.token_hex(32)


def connect(address: str, secret: str, name: str, patience_s: float = _PATIENCE_S) -> socket.socket:
    """Connects an agent to its launcher.

    Args:
        address: the launcher's, such as `"10.0.0.1:4711"`.
        secret: that both know.
        name: whom to say that one is.
        patience_s: seconds for everything.

    Raises:
        ProofFailed: what answers there is not the launcher.
        OSError: nothing answers there.
    """
    with contextlib.ExitStack() as undo:
        connection = undo.enter_context(socket.create_connection(split_address(address), patience_s))
        deadline = time.monotonic() + patience_s
        challenge = _receive(connection, deadline)
        nonce = secrets.token_hex(16)
        answer = {"name": name, "nonce": nonce, "proof": _proof(secret, "agent", name, challenge.get("nonce"))}
        _send(connection, answer, deadline)
        if not _fits(_receive(connection, deadline), _proof(secret, "launcher", name, nonce)):
            raise ProofFailed(f"what answers at {address} is not this run's launcher")
        undo.pop_all()
    return connection


def accept(connection: socket.socket, secret: str, patience_s: float = _PATIENCE_S) -> str:
    """Has whoever connected prove that it is an agent of this run.

    Args:
        connection: to it; the caller closes it after an error.
        secret: that both know.
        patience_s: seconds for everything.

    Returns:
        Whom it says that it is.

    Raises:
        ProofFailed: it is not one.
        OSError: it has gone.
    """
    deadline = time.monotonic() + patience_s
    nonce = secrets.token_hex(16)
    _send(connection, {"nonce": nonce}, deadline)
    answer = _receive(connection, deadline)
    name = str(answer.get("name"))
    if not _fits(answer, _proof(secret, "agent", name, nonce)):
        raise ProofFailed("a process that does not know this run's secret has connected")
    _send(connection, {"proof": _proof(secret, "launcher", name, answer.get("nonce"))}, deadline)
    return name


def _proof(secret: str, role: str, name: str, nonce: object) -> str:
    # As JSON, so that no two different triples make the same text.
    return hmac.new(secret.encode(), json.dumps([role, name, nonce]).encode(), "sha256").hexdigest()


def _fits(message: dict[str, Any], proof: str) -> bool:
    return hmac.compare_digest(str(message.get("proof")).encode(), proof.encode())


def _send(connection: socket.socket, message: dict[str, Any], deadline: float) -> None:
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, deadline: float) -> dict[str, Any]:
    """One line, and nothing behind it: what follows belongs to the channel."""
    line = bytearray()
    while not line.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = connection.recv(1)
        except TimeoutError:
            raise ProofFailed("the other end did not prove who it is in time") from None
        if not data or len(line) > _LONGEST_LINE:
            raise ProofFailed("the other end has gone, or is no process of this run")
        line += data
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise ProofFailed("the other end is no process of this run")
    return message
