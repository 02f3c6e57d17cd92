"""`manifest.json`: every file of a package with its size and hash, and `manifest.sig`, the signature over it.

The signature covers the very bytes of the manifest, and the manifest's hashes cover every other file. Its name and
version are signed too: a package that was signed as `mnist` 3 cannot be passed off as another model or version.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from delivery.package.folder_walk import FileDigest, is_plain_path
from delivery.package.refusal import PackageRefused, shown
from delivery.package.signing_keys import PublicKey, SigningKey, parse_time, time_text

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MOST_BYTES = 4 << 20  # of either file
_FORMAT = "phalanx package 1"
_SIGNED = b"phalanx package manifest 1\n"  # before the manifest's bytes: a signature of anything else is none of these
_HEX = re.compile(r"[0-9a-f]{64}")
_KEY_ID = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST_VERSION = 2**63 - 1  # what TensorFlow Serving counts to


@dataclass(frozen=True)
class Manifest:
    """What a package says that it is.

    Attributes:
        name: Of the model.
        version: At least 1.
        created: When the manifest was written, UTC.
        key: The id of the key that signs it; None: not signed.
        files: Every file but the manifest and its signature.
    """

    name: str
    version: int
    created: datetime
    key: str | None
    files: Mapping[str, FileDigest]

    def to_json(self) -> bytes:
        """The file's bytes; the same fields give the same bytes."""
        fields = {
            "format": _FORMAT,
            "name": self.name,
            "version": self.version,
            "created": time_text(self.created),
            "key": self.key,
            "files": {path: {"sha256": it.sha256, "size": it.size} for path, it in sorted(self.files.items())},
        }
        return json.dumps(fields, indent=1).encode() + b"\n"


def check_model_name(name: str) -> str:
    """The name, if a package and a folder of the repository may have it.

    Raises:
        ValueError: It may not.
    """
    if not _NAME.fullmatch(name) or not is_plain_path(name):
        raise ValueError(
            f"{name!r} cannot name a model: use up to 128 letters, digits, dots, dashes and underscores, a letter or "
            "digit first"
        )
    return name


def new_manifest(
    name: str, version: int, files: Mapping[str, FileDigest], key: SigningKey | None, now: datetime | None = None
) -> Manifest:
    """The manifest of a package that is being made.

    Raises:
        ValueError: Name or version may not be so.
    """
    check_model_name(name)
    if not 1 <= version <= _MOST_VERSION:
        raise ValueError(f"version {version} must lie between 1 and {_MOST_VERSION}: choose another one")
    return Manifest(name, version, now or datetime.now(timezone.utc), key.public.id if key else None, dict(files))


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in these bytes; every field must be there, of its type, and no other.

    Raises:
        PackageRefused: They hold none.
    """
    try:
        fields = json.loads(content, object_pairs_hook=_without_repeats)
        return _checked(fields)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        reason = str(error) if isinstance(error, _Wrong) else "it cannot be read"
        raise PackageRefused("manifest", MANIFEST, f"{MANIFEST} is no manifest of a package: {reason}") from None


def sign_manifest(content: bytes, key: SigningKey) -> bytes:
    """The bytes of `manifest.sig` for a manifest's bytes."""
    signature = base64.b64encode(key.sign(_SIGNED + content)).decode()
    return json.dumps({"key": key.public.id, "signature": signature}, indent=1).encode() + b"\n"


def check_signature(manifest: bytes, signature: bytes, keyring: Mapping[str, PublicKey], now: datetime) -> PublicKey:
    """The trusted key that signed a manifest.

    Args:
        manifest: The bytes of `manifest.json`.
        signature: The bytes of `manifest.sig`.
        keyring: The trusted keys by id.
        now: Decides whether a key has expired.

    Raises:
        PackageRefused: The signature is none, of an unknown or expired key, or of other bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        fields = json.loads(signature, object_pairs_hook=_without_repeats)
        if not isinstance(fields, dict) or set(fields) != {"key", "signature"} or not _KEY_ID.fullmatch(fields["key"]):
            raise ValueError("other fields")
        raw = base64.b64decode(fields["signature"], validate=True)
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise PackageRefused("signature", SIGNATURE, f"{SIGNATURE} is no signature of a package") from None
    key = keyring.get(fields["key"])
    if key is None:
        known = ", ".join(sorted(f"{it.name} ({it.id})" for it in keyring.values()))
        raise PackageRefused(
            "unknown_key", SIGNATURE, f"{SIGNATURE} is of the key {fields['key']}, which is not trusted here: {known}"
        )
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(raw, _SIGNED + manifest)
    except (InvalidSignature, ValueError):
        raise PackageRefused(
            "signature", MANIFEST, f"{MANIFEST} is not what the key {key.name} ({key.id}) has signed"
        ) from None
    if key.is_expired(now):
        assert key.expires is not None
        raise PackageRefused(
            "expired_key",
            SIGNATURE,
            f"{SIGNATURE} is of the key {key.name} ({key.id}), which expired on {time_text(key.expires)}",
        )
    return key


class _Wrong(ValueError):
    """What is wrong with a manifest, as half a sentence."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Wrong("a field is there twice")
    return fields


def _checked(fields: Any) -> Manifest:
    if not isinstance(fields, dict) or set(fields) != {"format", "name", "version", "created", "key", "files"}:
        raise _Wrong("its fields are not those of a manifest")
    if fields["format"] != _FORMAT:
        raise _Wrong(f"its format is {shown(str(fields['format']))}, not {_FORMAT!r}")
    version, key, files = fields["version"], fields["key"], fields["files"]
    if type(version) is not int or not 1 <= version <= _MOST_VERSION:
        raise _Wrong("its version is no positive whole number")
    if not isinstance(fields["name"], str) or not _NAME.fullmatch(fields["name"]):
        raise _Wrong("its name is none of a model")
    if key is not None and not _KEY_ID.fullmatch(key):
        raise _Wrong("its key is no id of one")
    if not isinstance(files, dict) or not files:
        raise _Wrong("it lists no files")
    return Manifest(
        fields["name"],
        version,
        parse_time(fields["created"]),
        key,
        {path: _digest(path, files[path]) for path in files},
    )


def _digest(path: str, fields: Any) -> FileDigest:
    if not is_plain_path(path) or path in (MANIFEST, SIGNATURE):
        raise _Wrong(f"it lists {shown(path)}, which no package may hold so")
    if not isinstance(fields, dict) or set(fields) != {"sha256", "size"}:
        raise _Wrong(f"what it says of {path} is no size and hash")
    if type(fields["size"]) is not int or fields["size"] < 0 or not _HEX.fullmatch(fields["sha256"]):
        raise _Wrong(f"what it says of {path} is no size and hash")
    return FileDigest(fields["size"], fields["sha256"])
