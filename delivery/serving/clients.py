"""Who may ask, and how often: bearer tokens, hashed at rest, in a file that may change while the server runs.

A token is `NAME.SECRET` with 256 random bits, so that one round of a salted hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from delivery.serving.errors import ServingError
from trainer.atomic_file import write_whole

log = logging.getLogger("phalanx.serving")
_LOOK_EVERY_S = 1.0
_SCHEME = "bearer "


class ClientsError(ValueError):
    """The file of the clients cannot be used. The message is one sentence for who runs the server."""


class Client(BaseModel):
    """One client.

    Attributes:
        name: In its token, in metrics and in the audit log.
        salt: Hex.
        sha256: Of salt and secret, hex.
        requests_per_s: Most of them, on average; a second's worth at once. None: as many as it likes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_s: PositiveFloat | None = None


class ClientFile(BaseModel):
    """What lies in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    clients: tuple[Client, ...] = ()


def read_clients(path: Path) -> dict[str, Client]:
    """The clients of a file, by name.

    Raises:
        ClientsError: It cannot be read, or is no such file.
    """
    try:
        clients = ClientFile.model_validate_json(path.read_bytes()).clients
    except OSError as error:
        raise ClientsError(f"{path} cannot be read: {error.strerror}: make it with phalanx tokens create") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ClientsError(f"{path} is no file of clients: {where}: {first['msg']}") from None
    return {client.name: client for client in clients}


def create_token(path: Path, name: str, requests_per_s: float | None = None) -> str:
    """Adds a client to a file, or gives it a new token; returns the token, which is written nowhere.

    Raises:
        ClientsError: The file or the name cannot be used.
    """
    clients = read_clients(path) if path.exists() else {}
    salt, secret = secrets.token_hex(16), secrets.token_urlsafe(32)
    given = {"name": name, "salt": salt, "sha256": _hash(salt, secret), "requests_per_s": requests_per_s}
    try:
        clients[name] = Client.model_validate(given)
    except ValidationError as error:
        raise ClientsError(f"client {name!r} cannot be made: {error.errors()[0]['msg']}") from None
    _write(path, clients)
    return f"{name}.{secret}"


def revoke_token(path: Path, name: str) -> None:
    """Removes a client from a file.

    Raises:
        ClientsError: The file has no such client.
    """
    clients = read_clients(path)
    if name not in clients:
        raise ClientsError(f"{path} has no client {name}: it has {', '.join(sorted(clients)) or 'none'}")
    del clients[name]
    _write(path, clients)


class Clients:
    """Those of a file, which is read again when it changes.

    Args:
        path: Of the file.

    Raises:
        ClientsError: It cannot be used. Later such a file is logged, and the clients before it stay.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients = read_clients(path)
        self._stamp = self._stamp_now()
        self._looked_at = time.monotonic()
        self._buckets: dict[str, _Bucket] = {}

    def recognise(self, authorization: str) -> str:
        """The name of the client that a request is from.

        Args:
            authorization: The header: `Bearer TOKEN`.

        Raises:
            ServingError: UNAUTHENTICATED.
        """
        self._look()
        token = authorization[len(_SCHEME) :] if authorization[: len(_SCHEME)].lower() == _SCHEME else ""
        name, _, secret = token.strip().partition(".")
        client = self._clients.get(name)
        # A hash is computed for unknown names too: how long an answer takes tells nobody which names exist.
        expected = client.sha256 if client else "0" * 64
        good = hmac.compare_digest(_hash(client.salt if client else "", secret), expected)
        if client is None or not good:
            raise ServingError("UNAUTHENTICATED", "send a valid token: Authorization: Bearer TOKEN")
        return name

    def charge(self, name: str) -> None:
        """Counts a request of a client.

        Raises:
            ServingError: RESOURCE_EXHAUSTED, it asks more often than it may.
        """
        client = self._clients.get(name)
        if client is None or client.requests_per_s is None:
            return
        if wait_s := self._buckets.setdefault(name, _Bucket()).take(client.requests_per_s, time.monotonic()):
            message = f"client {name} may send {client.requests_per_s:g} requests a second: try again later"
            raise ServingError("RESOURCE_EXHAUSTED", message, retry_after_s=wait_s)

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._clients = read_clients(self._path)
            log.info("clients read", extra={"clients": len(self._clients)})
        except ClientsError as error:
            log.error("the clients stay as they were: %s", error)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass
class _Bucket:
    """A token bucket that holds a second's worth, at least one request."""

    level: float = 1.0
    filled_at: float = field(default_factory=time.monotonic)
    is_new: bool = True

    def take(self, rate: float, now: float) -> float:
        """0 when the request may pass, else the seconds to wait."""
        most = max(rate, 1.0)
        self.level = most if self.is_new else min(most, self.level + (now - self.filled_at) * rate)
        self.filled_at, self.is_new = now, False
        if self.level < 1.0:
            return (1.0 - self.level) / rate
        self.level -= 1.0
        return 0.0


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


def _write(path: Path, clients: dict[str, Client]) -> None:
    content = ClientFile(clients=tuple(sorted(clients.values(), key=lambda client: client.name)))
    write_whole(path, content.model_dump_json(indent=2) + "\n")
