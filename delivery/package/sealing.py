"""Writes the manifest of a package, and its signature."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from delivery.package.folder_walk import FolderWalk
from delivery.package.manifest import MANIFEST, SIGNATURE, Manifest, new_manifest, sign_manifest
from delivery.package.signing_keys import KeyRefused, SigningKey, time_text
from delivery.package.verification import check_package
from trainer.atomic_file import sync_folder


def seal(folder: Path, name: str, version: int, key: SigningKey | None = None, now: datetime | None = None) -> Manifest:
    """Hashes every file of a package that nobody else writes to, and writes manifest and signature.

    Args:
        folder: The package; an earlier manifest and signature in it are replaced.
        name: Of the model.
        version: Of the model, at least 1.
        key: Signs it; None: the package stays unsigned.
        now: The time of signing; None: the clock.

    Raises:
        PackageRefused: The folder holds what a package cannot.
        KeyRefused: The key has expired.
        ValueError: Name or version may not be so.
        OSError: A file cannot be read or written.
    """
    now = now or datetime.now(timezone.utc)
    if key is not None and key.public.is_expired(now):
        assert key.public.expires is not None
        raise KeyRefused(
            f"the key {key.public.name} expired on {time_text(key.public.expires)}: sign with a new one, from phalanx "
            "keys create"
        )
    walk = FolderWalk(folder)
    files = {path: walk.digest(path) for path in walk.files if path not in (MANIFEST, SIGNATURE)}
    manifest = new_manifest(name, version, files, key, now)
    content = manifest.to_json()
    # In between, and after a kill there, the package is refused; nothing wrong is ever accepted.
    (folder / SIGNATURE).unlink(missing_ok=True)
    _write(folder / MANIFEST, content)
    if key is not None:
        _write(folder / SIGNATURE, sign_manifest(content, key))
    return manifest


def sign(folder: Path, key: SigningKey, now: datetime | None = None) -> Manifest:
    """Signs a package as it is, or anew with another key, after checking that it is what its manifest says.

    Raises:
        PackageRefused: It is not, or holds what a package cannot.
        KeyRefused: The key has expired.
        OSError: A file cannot be read or written.
    """
    manifest = check_package(folder).manifest
    return seal(folder, manifest.name, manifest.version, key, now)


def _write(path: Path, content: bytes) -> None:
    # Beside the package, not in it: what a kill leaves there is no added file.
    temporary = path.parent.with_name(f".{path.parent.name}.{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
