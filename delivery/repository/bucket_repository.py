"""A model repository in a bucket, by fsspec: objects instead of files, and no lock.

Layout: `NAME/VERSION/...` as in a folder, and `NAME/.phalanx/states/SERIAL.json`, one object a change, each the whole
state after it: which versions there are, where the aliases point, and the line of the audit log. A change is the
creation of the next serial *if it is not there*, which these stores do for one of several that try at once. So nothing
is ever replaced, a reader sees one state or the next, and a version is there when a state names it, not when its
objects begin to appear.

What is promised rests on two things that a store must do: create an object only where there is none, and list what has
been created (`ATOMIC`). Others are refused: by name and, since a server that merely speaks a store's protocol may take
no notice of the condition, by trying it before anything is changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from delivery.package.folder_walk import FolderWalk
from delivery.package.manifest import MANIFEST, SIGNATURE, check_model_name
from delivery.package.sealing import seal
from delivery.package.signing_keys import SigningKey
from delivery.package.verification import (
    Keyring,
    VerifiedPackage,
    check_package,
    copy_files,
    verified_copy,
    verify,
)
from delivery.repository.audit_record import audit_record
from delivery.repository.model_repository import ANYWHERE, ModelRepository, _Anywhere, which_version
from delivery.repository.model_state import ModelState, check_alias, parse_state, state_text, write_state
from delivery.repository.refusal import RepositoryConflict, RepositoryRefused
from trainer.atomic_file import sync_folder, sync_tree

ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "memory")
"""Stores that create an object only where there is none, as one step: by If-None-Match, or a generation that must be 0;
`memory` within one process."""
_OWN = ".phalanx"
_STATES = f"{_OWN}/states"
_REPORTS = f"{_OWN}/reports"
_ONCE = "created-once"
_WHAT_FOR = b"Whoever changes this model tries to create this once more: the store has to refuse it.\n"
_SERIAL = re.compile(r"([0-9]{12})\.json")
_PLAIN = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*")
_TRIES = 20


@dataclass(frozen=True)
class Published:
    """A version of a model; its path is its address."""

    name: str
    version: int
    path: str


@dataclass(frozen=True)
class _Entry:
    """A model: its state, and the versions that are whole."""

    state: ModelState = field(default_factory=ModelState)
    versions: tuple[int, ...] = ()


Changed = tuple[_Entry, dict[str, Any]]


class BucketRepository:
    """A repository below an address such as `s3://bucket/models`, which any number of machines may change at once.

    Args:
        url: Its protocol is one of `ATOMIC`; the package that speaks it (s3fs, gcsfs, adlfs) is installed.
        atomic: Protocols that are relied on.

    Raises:
        RepositoryRefused: The store promises too little, or nothing installed speaks to it.
    """

    def __init__(self, url: str, atomic: Sequence[str] = ATOMIC) -> None:
        protocol = url.partition("://")[0]
        if protocol not in atomic:
            raise RepositoryRefused(
                f"{url} is in a store that is not known to create an object only where there is none, so that of two "
                f"that move an alias one would win unseen: use a folder, or one of {', '.join(atomic)}"
            )
        try:
            import fsspec

            self._store, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise RepositoryRefused(f"{url} cannot be reached ({error}): install phalanx[buckets] and that") from None
        self.url, self._root = url.rstrip("/"), root.rstrip("/")
        self._tried: set[str] = set()

    def models(self) -> list[str]:
        """The names of the models, sorted."""
        return [name for name in self._names(self._root) if self._names(f"{self._root}/{name}/{_STATES}")]

    def versions(self, name: str) -> list[int]:
        """The versions of a model that are whole, oldest first; none where there is no such model."""
        return sorted(self._entry(name).versions)

    def aliases(self, name: str) -> dict[str, int]:
        """Where the aliases of a model point."""
        return {alias: it.version for alias, it in self._entry(name).state.aliases.items()}

    def audit(self, name: str) -> list[dict[str, Any]]:
        """What was done to a model, oldest first."""
        records = [self._read(name, serial).state.last for serial in self._serials(name)]
        return [dict(record) for record in records if record is not None]

    def check(self, name: str) -> None:
        """Makes sure that there is such a model.

        Raises:
            RepositoryRefused: There is none.
        """
        self.resolve(name)

    def resolve(self, name: str, which: str | int | None = None) -> Published:
        """The version that an alias or a number means; None: the newest; as `ModelRepository.resolve`.

        Raises:
            RepositoryRefused: There is none.
        """
        entry = self._entry(name)
        if not entry.versions:
            raise RepositoryRefused(f"{self.url} has no model {name}: there are {', '.join(self.models()) or 'none'}")
        version = which_version(
            name, which, entry.versions, {key: it.version for key, it in entry.state.aliases.items()}
        )
        return Published(name, version, f"{self.url}/{name}/{version}")

    def verified(self, name: str, version: int, keyring: Keyring, place: Path) -> VerifiedPackage:
        """Brings a version to where nobody else can change it, and verifies it there; as `ModelRepository.verified`.

        Raises:
            PackageRefused: It is not what was signed; nothing is left at `place`.
            RepositoryRefused: Its objects have names that no package may have.
            OSError: The store cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="phalanx-bringing-") as folder:
            brought = Path(folder) / "package"
            brought.mkdir()
            self._download(name, version, brought)
            return verified_copy(brought, keyring, place, name=name, version=version)

    def keep_report(self, name: str, file: str, text: str) -> str:
        """Keeps the report of a release beside the model; returns its address; as `ModelRepository.keep_report`.

        Raises:
            OSError: The store cannot be reached.
        """
        self._store.pipe_file(f"{self._at(name)}/{_REPORTS}/{file}", text.encode())
        return f"{self.url}/{name}/{_REPORTS}/{file}"

    def publish(
        self, package: Path, *, key: SigningKey | None = None, keyring: Keyring | None = None, name: str | None = None
    ) -> Published:
        """Uploads a package as a new version; as `ModelRepository.publish`.

        Raises:
            PackageRefused: The package is damaged, harmful or not signed.
            RepositoryRefused: Its version is not new, or its name is another one.
            RepositoryConflict: Others change the model all the time.
            OSError: The store cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="phalanx-publishing-") as folder:
            place = Path(folder) / "package"
            place.mkdir()
            copy_files(FolderWalk(package), place, folder_mode=0o755, file_mode=0o644)
            checked = verify(place, keyring) if keyring is not None else check_package(place)
            manifest = checked.manifest
            name = check_model_name(name or manifest.name)
            self._check_creates_once(name)
            if key is None and (name != manifest.name or manifest.key is None):
                raise RepositoryRefused(f"{package} is not signed as {name}: publish it with --key, which signs it so")
            if key is None:
                version = manifest.version
                self._check_new(self._entry(name), name, version)
                if not self._claims(name, version, place, again=True):
                    raise RepositoryRefused(
                        f"version {version} of {name} is being published by somebody else: export it with another "
                        "--version, or publish it with --key, which signs it as the next one"
                    )
            else:
                version = max([self._entry(name).state.highest, *self.versions(name)]) + 1
                while True:
                    seal(place, name, version, key)
                    if self._claims(name, version, place, again=False):
                        break
                    version += 1  # somebody was faster, or was killed
                check_package(place)
            for path in FolderWalk(place).files:
                self._store.put_file(str(place / path), f"{self._at(name)}/{version}/{path}")

        def listed(entry: _Entry) -> Changed:
            self._check_new(entry, name, version, claimed=True)
            highest = max(entry.state.highest, version)
            state = replace(entry.state, highest=highest)
            return _Entry(state, (*entry.versions, version)), {"action": "published", "to": version}

        self._change(name, listed)
        return Published(name, version, f"{self.url}/{name}/{version}")

    def promote(
        self,
        name: str,
        version: int,
        alias: str,
        *,
        expected: int | _Anywhere | None = ANYWHERE,
        reason: str | None = None,
    ) -> None:
        """Points an alias to a version, in one step; as `ModelRepository.promote`.

        Raises:
            RepositoryConflict: The alias points elsewhere than expected by now.
            RepositoryRefused: There is no such version.
        """
        check_alias(alias)

        def moved(entry: _Entry) -> Changed | None:
            if version not in entry.versions:
                there = ", ".join(map(str, sorted(entry.versions))) or "none"
                raise RepositoryRefused(f"{name} has no version {version}: there are {there}")
            now = entry.state.aliases.get(alias)
            current = now.version if now else None
            if not isinstance(expected, _Anywhere) and current != expected:
                raise RepositoryConflict(
                    f"{alias} of {name} points to {current or 'no version'} by now, not to {expected or 'no version'}: "
                    "somebody else has moved it; look again and decide anew"
                )
            if current == version:
                return None
            record = {"action": "promoted", "alias": alias, "from": current, "to": version, "reason": reason}
            return replace(entry, state=entry.state.moved(alias, version)), record

        self._change(name, moved)

    def rollback(self, name: str, alias: str, *, reason: str | None = None) -> int:
        """Points an alias to where it pointed before; returns that; as `ModelRepository.rollback`.

        Raises:
            RepositoryRefused: There is nowhere to go back to.
        """
        check_alias(alias)

        def moved(entry: _Entry) -> Changed:
            now = entry.state.aliases.get(alias)
            back = next((version for version in now.before if version in entry.versions), None) if now else None
            if now is None or back is None:
                raise RepositoryRefused(f"{alias} of {name} has no earlier version to go back to: promote one instead")
            record = {"action": "rolled_back", "alias": alias, "from": now.version, "to": back, "reason": reason}
            return replace(entry, state=entry.state.moved_back(alias, back)), record

        return self._change(name, moved).state.aliases[alias].version

    def prune(self, name: str, keep: int) -> list[int]:
        """Deletes all but the newest versions; as `ModelRepository.prune`. States, which are the audit log, stay.

        Raises:
            RepositoryRefused: `keep` is below 1.
        """
        if keep < 1:
            raise RepositoryRefused(f"--keep={keep} must be at least 1: the newest version always stays")
        left: list[int] = []

        def pruned(entry: _Entry) -> Changed | None:
            stay = set(sorted(entry.versions)[-keep:])
            for alias in entry.state.aliases.values():
                stay.add(alias.version)
                stay.update(next(([v] for v in alias.before if v in entry.versions), []))
            left[:] = [version for version in sorted(entry.versions) if version not in stay]
            versions = tuple(version for version in entry.versions if version in stay)
            return (replace(entry, versions=versions), {"action": "pruned", "from": left}) if left else None

        self._change(name, pruned)
        for version in left:
            self._store.rm(f"{self._at(name)}/{version}", recursive=True)
        return left

    def pull(self, name: str, target: Path, keyring: Keyring | None = None) -> list[int]:
        """Brings versions that aliases point to, and the newest, into a repository in a folder, which servers follow.

        Args:
            name: Of the model.
            target: Folder of the repository; nothing else may be published there.
            keyring: Whose signature every version must have; None: it is checked, but anybody may have signed it.

        Returns:
            The versions that were brought.

        Raises:
            PackageRefused: A version is not what was signed; the others before it are there.
            RepositoryRefused: There is no such model.
            OSError: The store cannot be reached, or the folder not be written.
        """
        self.check(name)
        entry = self._entry(name)
        wanted = {*(it.version for it in entry.state.aliases.values()), max(entry.versions)}
        local = ModelRepository(target)
        own = target / name / _OWN
        own.mkdir(parents=True, exist_ok=True)
        brought = []
        for version in sorted(wanted - set(local.versions(name))):
            place = own / f"pulled-{uuid.uuid4().hex}"
            try:
                self._download(name, version, place)
                check = {"name": name, "version": version}
                if keyring is None:
                    check_package(place, **check)
                else:
                    verify(place, keyring, **check)
                sync_tree(place)
                os.rename(place, local.path(name, version))
            finally:
                shutil.rmtree(place, ignore_errors=True)
            brought.append(version)
        sync_folder(target / name)
        # Last: an alias never points to what has not come.
        write_state(own / "state.json", entry.state)
        for version in set(local.versions(name)) - set(entry.versions):
            gone = own / f"removed-{version}-{uuid.uuid4().hex[:8]}"
            os.rename(local.path(name, version), gone)
            shutil.rmtree(gone, ignore_errors=True)
        return brought

    def _download(self, name: str, version: int, place: Path) -> None:
        above = f"{self._at(name)}/{version}/"
        for path in self._store.find(above):
            below = path.partition(above.lstrip("/"))[2]
            if not _PLAIN.fullmatch(below):
                raise RepositoryRefused(f"{self.url}/{name}/{version} holds {below!r}, which no package may: remove it")
            target = place / below
            target.parent.mkdir(parents=True, exist_ok=True)
            self._store.get_file(path, str(target))

    def _claims(self, name: str, version: int, place: Path, again: bool) -> bool:
        """Whether this package may be uploaded as that version: nobody has claimed it, or, `again`, for the very same
        one, as after a publication that was killed.
        """
        content = b"".join((place / file).read_bytes() for file in (MANIFEST, SIGNATURE))
        digest = hashlib.sha256(content).hexdigest().encode()
        claim = f"{self._at(name)}/{_OWN}/claims/{version}"
        try:
            self._store.pipe_file(claim, digest, mode="create")
        except FileExistsError:
            # Not where a number is looked for: two that sign one package in one second make the very same one.
            return again and bytes(self._store.cat_file(claim)) == digest
        return True

    def _check_new(self, entry: _Entry, name: str, version: int, claimed: bool = False) -> None:
        newest = max([entry.state.highest, *entry.versions])
        if version in entry.versions or (version <= newest and not claimed):
            raise RepositoryRefused(
                f"version {version} of {name} is not new, the newest is {newest}: export it with "
                f"--version {newest + 1}, or publish it with --key, which signs it as the next one"
            )

    def _change(self, name: str, change: Callable[[_Entry], Changed | None]) -> _Entry:
        """Creates the next state; where somebody was faster, from what he left."""
        self._check_creates_once(name)
        for _ in range(_TRIES):
            entry = self._entry(name)
            if (changed := change(entry)) is None:
                return entry
            new, done = changed
            serial = entry.state.serial + 1
            new = replace(new, state=replace(new.state, serial=serial, last=audit_record(name, serial, **done)))
            # The change's own number tells it from the very same one of somebody else.
            fields = {
                "state": json.loads(state_text(new.state)),
                "versions": sorted(new.versions),
                "change": uuid.uuid4().hex,
            }
            content, place = json.dumps(fields).encode(), f"{self._at(name)}/{_STATES}/{serial:012}.json"
            try:
                self._store.pipe_file(place, content, mode="create")
                return new
            except FileExistsError:
                # Clients of stores try again when an answer was lost, and then meet what they have created themselves.
                if bytes(self._store.cat_file(place)) == content:
                    return new
        raise RepositoryConflict(f"others have changed {self.url}/{name} {_TRIES} times meanwhile: try again")

    def _check_creates_once(self, name: str) -> None:
        """Tries, once for each model, whether the store keeps to the condition that every change rests on."""
        if name in self._tried:
            return
        for _ in range(2):  # the second time at the latest it is there
            try:
                self._store.pipe_file(f"{self._at(name)}/{_OWN}/{_ONCE}", _WHAT_FOR, mode="create")
            except FileExistsError:
                self._tried.add(name)
                return
        raise RepositoryRefused(
            f"{self.url} is in a store that creates an object where there is one, though it was told not to "
            "(If-None-Match), so that of two that move an alias one would win unseen: use a folder, or a store that "
            "offers conditional writes"
        )

    def _entry(self, name: str) -> _Entry:
        serials = self._serials(check_model_name(name))
        return self._read(name, serials[-1]) if serials else _Entry()

    def _read(self, name: str, serial: int) -> _Entry:
        place = f"{self._at(name)}/{_STATES}/{serial:012}.json"
        try:
            fields = json.loads(self._store.cat_file(place))
            versions = tuple(int(version) for version in fields["versions"])
        except (ValueError, TypeError, KeyError):
            raise RepositoryRefused(f"{place} is damaged: put it back from the store's earlier versions") from None
        return _Entry(parse_state(json.dumps(fields["state"]), place), versions)

    def _serials(self, name: str) -> list[int]:
        found = (_SERIAL.fullmatch(entry) for entry in self._names(f"{self._at(name)}/{_STATES}"))
        return sorted(int(match[1]) for match in found if match)

    def _names(self, place: str) -> list[str]:
        self._store.invalidate_cache(place)  # others write there
        try:
            return sorted(path.rstrip("/").rpartition("/")[2] for path in self._store.ls(place, detail=False))
        except FileNotFoundError:
            return []

    def _at(self, name: str) -> str:
        return f"{self._root}/{check_model_name(name)}"
