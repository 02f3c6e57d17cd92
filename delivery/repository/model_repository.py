"""A folder of models as TensorFlow Serving reads it, `NAME/VERSION/`, with aliases, retention and an audit log.

What Phalanx adds lies in `NAME/.phalanx/`, which servers pass over: `state.json` (the aliases), `audit.jsonl`, `lock`,
`reports/` of releases, and folders on their way in or out. A version becomes visible by one rename of a folder that is
whole, verified and on the disk, and is not changed after that.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delivery.package.folder_walk import FolderWalk
from delivery.package.manifest import SIGNATURE, check_model_name
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
from delivery.repository.model_lock import held, try_lock
from delivery.repository.model_state import ModelState, check_alias, read_state, write_state
from delivery.repository.refusal import RepositoryConflict, RepositoryRefused
from trainer.atomic_file import sync_folder, sync_tree, write_whole
from trainer.observe.json_lines import JsonLines, read_lines

__all__ = ["ANYWHERE", "ModelRepository", "RepositoryConflict", "RepositoryRefused", "Resolved", "which_version"]

_OWN = ".phalanx"
_VERSION = re.compile(r"[1-9][0-9]{0,18}")


class _Anywhere:
    """Of an alias that may be moved wherever it points."""


ANYWHERE = _Anywhere()


@dataclass(frozen=True)
class Resolved:
    """A version of a model, found by an alias or a number."""

    name: str
    version: int
    path: Path


class ModelRepository:
    """A repository in a folder, which several machines may share.

    Args:
        folder: Of the repository; made by the first publication.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Reading takes no lock: every file that is read is replaced as a whole.

    def models(self) -> list[str]:
        """The names of the models, sorted."""
        try:
            return sorted(path.name for path in self.folder.iterdir() if (path / _OWN).is_dir())
        except FileNotFoundError:
            return []

    def versions(self, name: str) -> list[int]:
        """The visible versions of a model, oldest first; none where there is no such model."""
        try:
            entries = list(os.scandir(self.folder / check_model_name(name)))
        except FileNotFoundError:
            return []
        found = [entry for entry in entries if _VERSION.fullmatch(entry.name)]
        return sorted(int(entry.name) for entry in found if entry.is_dir(follow_symlinks=False))

    def aliases(self, name: str) -> dict[str, int]:
        """Where the aliases of a model point."""
        return {alias: it.version for alias, it in self._state(name).aliases.items()}

    def path(self, name: str, version: int) -> Path:
        """Where a version is, or would be."""
        return self.folder / check_model_name(name) / str(version)

    def resolve(self, name: str, which: str | int | None = None) -> Resolved:
        """The version that an alias or a number means; None: the newest.

        Raises:
            RepositoryRefused: There is none.
        """
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.models()) or "none"
            raise RepositoryRefused(f"{self.folder} has no model {name}: there are {known}")
        version = which_version(name, which, versions, self.aliases(name))
        return Resolved(name, version, self.path(name, version))

    def check(self, name: str) -> None:
        """Makes sure that there is such a model.

        Raises:
            RepositoryRefused: There is none.
        """
        self.resolve(name)

    def verified(self, name: str, version: int, keyring: Keyring, place: Path) -> VerifiedPackage:
        """Copies a version to where nobody else can change it, and verifies the copy; as `verified_copy`.

        Raises:
            PackageRefused: It is not what was signed; nothing is left at `place`.
            OSError: A file cannot be read or written.
        """
        return verified_copy(self.path(name, version), keyring, place, name=name, version=version)

    def keep_report(self, name: str, file: str, text: str) -> str:
        """Keeps the report of a release beside the model; returns its path.

        Raises:
            OSError: It cannot be written.
        """
        folder = self._own(name) / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / file, text)
        return str(folder / file)

    def audit(self, name: str) -> list[dict[str, Any]]:
        """What was done to a model, oldest first: time, who, action, alias, from, to."""
        return [line for line in read_lines(self._own(name) / "audit.jsonl") if "action" in line]

    # Changing takes the model's lock.

    def publish(
        self, package: Path, *, key: SigningKey | None = None, keyring: Keyring | None = None, name: str | None = None
    ) -> Resolved:
        """Copies a package into the repository as a new version.

        With `key` it becomes the next version, and is signed anew as that. Without, its own name, version and signature
        stay, so the version must be new.

        Args:
            package: Its folder; it stays as it is.
            key: Signs it as the next version.
            keyring: Whose signature the package must have; None: it is checked, but anybody may have signed it.
            name: Of the model; None: as its manifest says. Another name needs `key`.

        Raises:
            PackageRefused: The package is damaged, harmful or not signed.
            RepositoryRefused: Its version is not new, or its name is another one.
            RepositoryConflict: The lock stays taken.
            OSError: A file cannot be read or written.
        """
        checked = verify(package, keyring) if keyring is not None else check_package(package)
        manifest = checked.manifest
        name = check_model_name(name or manifest.name)
        if key is None and name != manifest.name:
            raise RepositoryRefused(
                f"{package} is signed as {manifest.name}, not as {name}: publish it under that name, or sign it anew "
                "with --key"
            )
        if key is None and manifest.key is None:
            raise RepositoryRefused(f"{package} is not signed: sign it first, or publish it with --key")
        if key is None:
            self._check_new(name, manifest.version)
        with self._on_its_way(name) as place:
            copy_files(FolderWalk(package), place, folder_mode=0o755, file_mode=0o644)
            version = manifest.version
            if key is not None:
                version = self._next_version(name)
                seal(place, name, version, key)
            while True:
                checked = verify(place, keyring) if keyring is not None and key is None else check_package(place)
                if checked.manifest.name != name or not (place / SIGNATURE).exists():
                    raise RepositoryRefused(f"{package} has changed while it was published: publish it again")
                _set_unwritable(place)
                sync_tree(place)
                with self._changing(name) as state:
                    if key is None or version > state.highest:
                        self._check_new(name, version)
                        os.rename(place, self.path(name, version))
                        sync_folder(self.folder / name)
                        self._commit(name, replace(state, highest=version), "published", to=version)
                        return Resolved(name, version, self.path(name, version))
                assert key is not None
                version = self._next_version(name)  # somebody was faster
                seal(place, name, version, key)

    def promote(
        self,
        name: str,
        version: int,
        alias: str,
        *,
        expected: int | _Anywhere | None = ANYWHERE,
        reason: str | None = None,
    ) -> None:
        """Points an alias to a version, in one step.

        Args:
            name: Of the model.
            version: That is there.
            alias: `staging`, `production`, ...
            expected: Where the alias pointed when the caller decided (None: nowhere); of several that decided at the
                same time one wins. ANYWHERE: whatever it was.
            reason: Goes into the audit log.

        Raises:
            RepositoryConflict: The alias points elsewhere by now.
            RepositoryRefused: There is no such version.
        """
        check_alias(alias)
        with self._changing(name) as state:
            self._check_there(name, version)
            now = state.aliases.get(alias)
            current = now.version if now else None
            if not isinstance(expected, _Anywhere) and current != expected:
                raise RepositoryConflict(
                    f"{alias} of {name} points to {_version(current)} by now, not to {_version(expected)}: "
                    "somebody else has moved it; look again and decide anew"
                )
            if current != version:
                moved = state.moved(alias, version)
                self._commit(name, moved, "promoted", alias=alias, came_from=current, to=version, reason=reason)

    def rollback(self, name: str, alias: str, *, reason: str | None = None) -> int:
        """Points an alias to where it pointed before, to the newest such version that is still there; returns that.

        Raises:
            RepositoryRefused: There is nowhere to go back to.
        """
        with self._changing(name) as state:
            now = state.aliases.get(check_alias(alias))
            there = set(self.versions(name))
            back = next((version for version in now.before if version in there), None) if now else None
            if now is None or back is None:
                raise RepositoryRefused(f"{alias} of {name} has no earlier version to go back to: promote one instead")
            moved = state.moved_back(alias, back)
            self._commit(name, moved, "rolled_back", alias=alias, came_from=now.version, to=back, reason=reason)
            return back

    def prune(self, name: str, keep: int) -> list[int]:
        """Deletes all but the newest versions, never one that an alias points to or would be rolled back to.

        Args:
            name: Of the model.
            keep: Newest versions that stay, at least 1.

        Returns:
            The versions that were deleted.

        Raises:
            RepositoryRefused: `keep` is below 1.
        """
        if keep < 1:
            raise RepositoryRefused(f"--keep={keep} must be at least 1: the newest version always stays")
        with self._changing(name) as state:
            versions = self.versions(name)
            stay = set(versions[-keep:])
            for alias in state.aliases.values():
                stay.add(alias.version)
                stay.update(next(([v] for v in alias.before if v in versions), []))
            leave = [version for version in versions if version not in stay]
            retired = [self._own(name) / f"removed-{version}-{uuid.uuid4().hex[:8]}" for version in leave]
            for version, place in zip(leave, retired, strict=True):
                os.rename(self.path(name, version), place)
                state = self._commit(name, state, "pruned", came_from=version)
            sync_folder(self.folder / name)
            for left in self._own(name).glob("removed-*"):  # those of a killed prune too
                shutil.rmtree(left, ignore_errors=True)
        return leave

    def _own(self, name: str) -> Path:
        return self.folder / check_model_name(name) / _OWN

    def _state(self, name: str) -> ModelState:
        return read_state(self._own(name) / "state.json")

    def _next_version(self, name: str) -> int:
        return max([self._state(name).highest, *self.versions(name)]) + 1

    def _check_there(self, name: str, version: int) -> None:
        self.resolve(name, version)

    def _check_new(self, name: str, version: int) -> None:
        newest = self._next_version(name) - 1
        if version <= newest:
            raise RepositoryRefused(
                f"version {version} of {name} is not new, the newest is {newest}: export it with "
                f"--version {newest + 1}, or publish it with --key, which signs it as the next one"
            )

    @contextmanager
    def _changing(self, name: str) -> Iterator[ModelState]:
        """The state, and nobody else changes it meanwhile; what a killed process has left undone is done first."""
        own = self._own(name)
        if not own.is_dir():
            self.resolve(name)  # says that there is no such model
        with held(own / "lock"):
            state = self._state(name)
            self._complete_audit(name, state)
            for version in self.versions(name):
                if version > state.highest:  # renamed into place by a process that was killed then
                    state = self._commit(name, replace(state, highest=version), "published", to=version)
            yield state

    def _commit(
        self,
        name: str,
        state: ModelState,
        action: str,
        *,
        alias: str | None = None,
        came_from: int | None = None,
        to: int | None = None,
        reason: str | None = None,
    ) -> ModelState:
        what = {"alias": alias, "from": came_from, "to": to, "reason": reason}
        record = audit_record(name, state.serial + 1, action, **what)
        state = replace(state, serial=state.serial + 1, last=record)
        write_state(self._own(name) / "state.json", state)
        self._complete_audit(name, state)
        return state

    def _complete_audit(self, name: str, state: ModelState) -> None:
        if state.last is None:
            return
        path = self._own(name) / "audit.jsonl"
        if max((line.get("serial", 0) for line in read_lines(path)), default=0) < state.serial:
            log = JsonLines(path)
            log.append(state.last)
            log.sync()
            log.close()

    @contextmanager
    def _on_its_way(self, name: str) -> Iterator[Path]:
        """A folder for a version that nobody sees yet; what killed publications have left is cleared."""
        area = self._own(name) / "publishing"
        area.mkdir(parents=True, exist_ok=True)
        for left in area.glob("*.lock"):
            _clear_if_abandoned(left)
        place = area / uuid.uuid4().hex
        lock = place.with_name(f"{place.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            try_lock(descriptor)
            place.mkdir()
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def which_version(name: str, which: str | int | None, versions: Sequence[int], aliases: Mapping[str, int]) -> int:
    """The version that an alias or a number means; None: the newest.

    Args:
        name: Of the model.
        which: To be found.
        versions: That are there; one at least.
        aliases: And where they point.

    Raises:
        RepositoryRefused: There is none.
    """
    if which is None:
        version = max(versions)
    elif isinstance(which, str) and not _VERSION.fullmatch(which):
        if which not in aliases:
            raise RepositoryRefused(
                f"{name} has no alias {which}: set it with phalanx repository promote {name} VERSION --to {which}"
            )
        version = aliases[which]
    else:
        version = int(which)
    if version not in versions:
        there = ", ".join(map(str, sorted(versions)))
        raise RepositoryRefused(f"{name} has no version {version}: there are {there}")
    return version


def _clear_if_abandoned(lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if try_lock(descriptor):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            # A manifest is written beside the folder that it lists and moved in when it is whole.
            for unfinished in lock.parent.glob(f".{lock.stem}.*"):
                unfinished.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _set_unwritable(folder: Path) -> None:
    """Versions do not change; this spares them mistakes. Folders stay open to whoever prunes."""
    for place, _, files in os.walk(folder):
        for file in files:
            (Path(place) / file).chmod(0o444)


def _version(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
