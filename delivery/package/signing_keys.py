"""The ed25519 keys that packages are signed with: made, read, gathered in a keyring.

The private key is a PKCS#8 PEM file that only its owner reads. The public key is a small JSON file beside it, which
goes to whoever receives models. A keyring is a folder of public keys: whose file lies there is trusted until it
expires. To rotate: make a new key, add its public file to the keyrings, sign with it from now on; the old one expires
or its file is removed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.atomic_file import sync_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub.json"
_KIND = "phalanx ed25519 public key"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MOST_BYTES = 16 << 10  # of a key file


class KeyRefused(ValueError):
    """A key file cannot be used. The message is one sentence for the user."""


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        id: The first 16 hexadecimal digits of the SHA-256 of the key's bytes.
        name: Given by its maker.
        raw: The 32 bytes of the key.
        created: When it was made, UTC.
        expires: From then on it vouches for nothing; None: never.
    """

    id: str
    name: str
    raw: bytes
    created: datetime
    expires: datetime | None = None

    def is_expired(self, now: datetime) -> bool:
        """Whether the key vouches for nothing any more."""
        return self.expires is not None and now >= self.expires

    def to_json(self) -> str:
        """The text of its file."""
        fields = {
            "kind": _KIND,
            "id": self.id,
            "name": self.name,
            "created": time_text(self.created),
            "expires": time_text(self.expires) if self.expires else None,
            "key": base64.b64encode(self.raw).decode(),
        }
        return json.dumps(fields, indent=2) + "\n"


@dataclass(frozen=True)
class SigningKey:
    """A private key with its public half."""

    private: Ed25519PrivateKey
    public: PublicKey

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self.private.sign(message)


def create_key(folder: Path, name: str, expires: datetime | None = None, now: datetime | None = None) -> SigningKey:
    """Makes a key pair: `NAME.key`, which only its owner may read, and `NAME.pub.json`.

    Raises:
        KeyRefused: The name is no plain name, a key of that name is there, or the key would have expired already.
        OSError: The folder cannot be written.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not _NAME.fullmatch(name):
        raise KeyRefused(
            f"{name!r} cannot name a key: use up to 63 letters, digits, dots, dashes and underscores, a letter or "
            "digit first"
        )
    now = (now or datetime.now(timezone.utc)).replace(microsecond=0)
    if expires is not None and expires <= now:
        raise KeyRefused(f"the key {name} would expire on {time_text(expires)}, which is past: give a later time")
    private = Ed25519PrivateKey.generate()
    public = _public_key(private, name, now, expires)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / f"{name}{PUBLIC_SUFFIX}").exists():
        raise KeyRefused(f"{folder / name}{PUBLIC_SUFFIX} is there already: choose another name; keys are not replaced")
    _write_new(folder / f"{name}{PRIVATE_SUFFIX}", pem, 0o600)
    _write_new(folder / f"{name}{PUBLIC_SUFFIX}", public.to_json().encode(), 0o644)
    sync_folder(folder)
    return SigningKey(private, public)


def read_signing_key(path: Path) -> SigningKey:
    """The private key in `NAME.key`, with what `NAME.pub.json` beside it says of name and expiry.

    Raises:
        KeyRefused: The file is no ed25519 key, others may read it, or the public file beside it is of another key.
        OSError: It cannot be read.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise KeyRefused(f"others may read the private key {path}: take that from them with chmod 600 {path}")
        text = file.read(_MOST_BYTES)
    try:
        private = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyRefused(f"{path} holds no ed25519 private key: make one with phalanx keys create NAME")
    beside = path.with_name(path.name.removesuffix(PRIVATE_SUFFIX) + PUBLIC_SUFFIX)
    if not beside.exists():
        raise KeyRefused(f"{path} lacks {beside.name} beside it, which says when the key expires: put it there")
    public = read_public_key(beside)
    if public.raw != private.public_key().public_bytes_raw():
        raise KeyRefused(f"{beside} is the public half of another key than {path}: put the right one there")
    return SigningKey(private, public)


def read_public_key(path: Path) -> PublicKey:
    """A public key from its file.

    Raises:
        KeyRefused: The file is no public key, or its id is not that of its key.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES + 1)
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise KeyRefused(f"{path} is no public key of Phalanx: give NAME{PUBLIC_SUFFIX} or a folder of them") from None


def read_keyring(places: Path | Sequence[Path]) -> dict[str, PublicKey]:
    """The trusted keys by id, from public key files and folders of them.

    Raises:
        KeyRefused: There is no key, or a file of that name is none.
        OSError: A file cannot be read.
    """
    _require_cryptography()
    keys: dict[str, PublicKey] = {}
    for place in [places] if isinstance(places, Path) else places:
        for path in sorted(place.glob(f"*{PUBLIC_SUFFIX}")) if place.is_dir() else [place]:
            key = read_public_key(path)
            known = keys.setdefault(key.id, key)
            if known.expires != key.expires:
                raise KeyRefused(f"{path} gives the key {key.id} another expiry than another file: keep one of the two")
    if not keys:
        named = places if isinstance(places, Path) else ", ".join(map(str, places)) or "the keyring"
        raise KeyRefused(f"{named} holds no public key: put files NAME{PUBLIC_SUFFIX} there")
    return keys


def time_text(moment: datetime) -> str:
    """ISO 8601 in UTC, to the second.

    >>> time_text(datetime(2026, 11, 24, 12, tzinfo=timezone.utc))
    '2026-11-24T12:00:00Z'
    """
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The inverse of `time_text`; also takes a date alone.

    Raises:
        ValueError: It is neither.
    """
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=timezone.utc)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is no time: write it as 2027-01-31 or 2027-01-31T12:00:00Z")


def _parse(fields: Mapping[str, Any]) -> PublicKey:
    if not isinstance(fields, dict) or set(fields) != {"kind", "id", "name", "created", "expires", "key"}:
        raise ValueError("other fields")
    try:
        raw = base64.b64decode(fields["key"], validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
    name = fields["name"]
    if fields["kind"] != _KIND or len(raw) != 32 or fields["id"] != key_id(raw) or not _NAME.fullmatch(name):
        raise ValueError("other contents")
    expires = None if fields["expires"] is None else parse_time(fields["expires"])
    return PublicKey(fields["id"], name, raw, parse_time(fields["created"]), expires)


def key_id(raw: bytes) -> str:
    """The id of a public key from its 32 bytes."""
    return hashlib.sha256(raw).hexdigest()[:16]


def _public_key(private: Ed25519PrivateKey, name: str, created: datetime, expires: datetime | None) -> PublicKey:
    raw = private.public_key().public_bytes_raw()
    return PublicKey(key_id(raw), name, raw, created, expires)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise KeyRefused(f"{path} is there already: choose another name; keys are not replaced") from None
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _require_cryptography() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise KeyRefused("signatures need the package cryptography: install phalanx[delivery]")
