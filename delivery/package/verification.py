"""Whether a package may be loaded: every byte is what somebody trusted has signed, and nothing in it can do harm.

`verify` decides about what it has read. Whoever can write to the folder can change it afterwards, so a program that
loads a model calls `verified_copy` instead: it copies the package into a folder that only this user can write to,
verifies the copy, and loads from there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from delivery.package.file_kinds import check_contents, check_kinds, most_bytes
from delivery.package.folder_walk import FolderWalk
from delivery.package.graph_scan import Signature
from delivery.package.manifest import (
    MANIFEST,
    MOST_BYTES,
    SIGNATURE,
    Manifest,
    check_signature,
    parse_manifest,
)
from delivery.package.refusal import PackageRefused, shown
from delivery.package.signing_keys import PublicKey, read_keyring

__all__ = ["PackageRefused", "VerifiedPackage", "check_package", "verified_copy", "verify"]

Keyring = Mapping[str, PublicKey] | Path | Sequence[Path]


@dataclass(frozen=True)
class VerifiedPackage:
    """A package that may be loaded.

    Attributes:
        path: Where it was verified.
        manifest: Its name, version and files.
        key: That signed it; None from `check_package`, which asks for no signature.
        operations: The kinds of operation in the model, sorted.
        signatures: What each signature takes and gives.
    """

    path: Path
    manifest: Manifest
    key: PublicKey | None
    operations: tuple[str, ...]
    signatures: Mapping[str, Signature]

    @property
    def size(self) -> int:
        """Bytes of the files that the manifest lists."""
        return sum(file.size for file in self.manifest.files.values())


def verify(
    folder: Path,
    keyring: Keyring,
    *,
    name: str | None = None,
    version: int | None = None,
    now: datetime | None = None,
) -> VerifiedPackage:
    """Checks signature, files and contents of a package, in this order; loads nothing.

    Args:
        folder: The package.
        keyring: The trusted keys: public key files, folders of them, or what `read_keyring` gave.
        name: What the model must be called; None: anything.
        version: What its version must be; None: any.
        now: Decides whether a key has expired; None: the clock.

    Raises:
        PackageRefused: A rule is broken; the message names the file and the rule.
        KeyRefused: The keyring cannot be used.
        OSError: A file cannot be read.
    """
    walk = FolderWalk(folder)
    manifest, key = _authenticate(walk, _keys(keyring), now)
    return _checked(walk, manifest, key, name, version)


def check_package(folder: Path, *, name: str | None = None, version: int | None = None) -> VerifiedPackage:
    """As `verify`, but nobody need have signed the package: for its makers, before they sign it.

    Raises:
        PackageRefused: A rule is broken.
        OSError: A file cannot be read.
    """
    walk = FolderWalk(folder)
    check_kinds(walk)
    manifest = parse_manifest(_required(walk, MANIFEST))
    return _checked(walk, manifest, None, name, version)


def verified_copy(
    folder: Path,
    keyring: Keyring,
    place: Path,
    *,
    name: str | None = None,
    version: int | None = None,
    now: datetime | None = None,
) -> VerifiedPackage:
    """Copies a package to where nobody else can change it, and verifies the copy.

    Args:
        folder: The package.
        keyring: As in `verify`.
        place: Made by this call, open to this user only. Nobody else may be able to rename it: its parent must be
            writable by this user alone, or sticky as /tmp is.
        name: As in `verify`.
        version: As in `verify`.
        now: As in `verify`.

    Raises:
        PackageRefused: A rule is broken; nothing is left at `place`.
        KeyRefused: The keyring cannot be used.
        FileExistsError: There is something at `place`.
        OSError: A file cannot be read or written.
    """
    keys = _keys(keyring)
    walk = FolderWalk(folder)
    manifest, _ = _authenticate(walk, keys, now)
    _check_listing(walk, manifest)  # what is too large or not listed need not be copied first
    os.mkdir(place, 0o700)
    try:
        copy_files(walk, place, folder_mode=0o700, file_mode=0o600)
        return verify(place, keys, name=name, version=version, now=now)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def copy_files(walk: FolderWalk, place: Path, *, folder_mode: int, file_mode: int) -> None:
    """Copies the files that a walk has found, and no others, into a folder that is there and empty.

    Raises:
        PackageRefused: One has changed since the walk.
        OSError: A file cannot be read or written.
    """
    for path in walk.files:
        target = place / path
        target.parent.mkdir(mode=folder_mode, parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, file_mode)
        with open(descriptor, "wb") as file:
            walk.digest(path, file.write)


def _keys(keyring: Keyring) -> Mapping[str, PublicKey]:
    return keyring if isinstance(keyring, Mapping) else read_keyring(keyring)


def _required(walk: FolderWalk, path: str) -> bytes:
    if path not in walk.files:
        hint = ": the package is not signed" if path == SIGNATURE else ""
        raise PackageRefused("unsigned" if path == SIGNATURE else "missing", path, f"{path} is missing{hint}")
    return walk.read(path, MOST_BYTES)


def _authenticate(walk: FolderWalk, keys: Mapping[str, PublicKey], now: datetime | None) -> tuple[Manifest, PublicKey]:
    """The manifest, if it is signed: nothing else of a package is read before."""
    check_kinds(walk)
    content = _required(walk, MANIFEST)
    key = check_signature(content, _required(walk, SIGNATURE), keys, now or datetime.now(timezone.utc))
    manifest = parse_manifest(content)
    if manifest.key != key.id:
        raise PackageRefused(
            "signature", MANIFEST, f"{MANIFEST} names the key {manifest.key}, but {key.id} has signed it"
        )
    return manifest, key


def _check_listing(walk: FolderWalk, manifest: Manifest) -> None:
    found = set(walk.files) - {MANIFEST, SIGNATURE}
    for path in sorted(found - set(manifest.files)):
        raise PackageRefused("added", path, f"{path} is not listed in {MANIFEST}: it was added or renamed")
    for path in sorted(set(manifest.files) - found):
        raise PackageRefused("missing", path, f"{path} is listed in {MANIFEST} and missing: it was removed or renamed")
    for path, wanted in manifest.files.items():
        if walk.files[path] != wanted.size:
            raise PackageRefused(
                "changed", path, f"{path} has {walk.files[path]} bytes, and {wanted.size} by {MANIFEST}"
            )
        most = most_bytes(path)
        if most is not None and wanted.size > most:
            raise PackageRefused("size", path, f"{path} has {wanted.size} bytes, more than the {most} that it may have")


def _checked(
    walk: FolderWalk, manifest: Manifest, key: PublicKey | None, name: str | None, version: int | None
) -> VerifiedPackage:
    _check_listing(walk, manifest)
    contents: dict[str, bytes] = {}
    for path, wanted in manifest.files.items():
        content = bytearray()
        keep = None if most_bytes(path) is None else content.extend
        if walk.digest(path, keep) != wanted:
            raise PackageRefused(
                "changed", path, f"{path} is not the file that was signed: its bytes have another hash"
            )
        if keep is not None:
            contents[path] = bytes(content)
    if name is not None and manifest.name != name:
        raise PackageRefused(
            "name", MANIFEST, f"{MANIFEST} is of the model {shown(manifest.name)}, where {shown(name)} was expected"
        )
    if version is not None and manifest.version != version:
        raise PackageRefused(
            "version", MANIFEST, f"{MANIFEST} is of version {manifest.version}, where {version} was expected"
        )
    scanned = check_contents(contents)
    return VerifiedPackage(walk.folder, manifest, key, scanned.operations, scanned.signatures)
