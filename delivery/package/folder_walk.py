"""Looks at every entry of an untrusted folder without following anything, and reads its files once.

Everything goes through descriptors of the folders, so that a name swapped for a symbolic link meanwhile is refused
instead of followed. What was read is what was hashed: a later change of the file changes nothing that was decided.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from delivery.package.refusal import PackageRefused, shown

MOST_ENTRIES = 10_000
_MOST_DEPTH = 8
_BLOCK = 1 << 20
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
# Besides the letter and the digit: what names in a package are made of. Anything else could be mistaken for another.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclass(frozen=True)
class FileDigest:
    """A file as it was read: size in bytes, SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


class FolderWalk:
    """Every file below a folder.

    Args:
        folder: The package; itself no symbolic link, though its parents may be.

    Attributes:
        files: Sizes in bytes by path below the folder, with `/` between names.

    Raises:
        PackageRefused: There is anything but plain files with plain names in folders that are not empty.
        OSError: It cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}
        with self._open_root() as root:
            self._walk(root, "", 1)

    def digest(self, path: str, on_block: Callable[[bytes], object] | None = None) -> FileDigest:
        """Reads a file once, to its end or one byte beyond the size that the walk has seen.

        Args:
            path: One of `files`.
            on_block: Gets the bytes as they are read.

        Raises:
            PackageRefused: It is another kind of entry by now, or has another size.
        """
        digest, size = hashlib.sha256(), 0
        with self._open(path) as descriptor:
            while size <= self.files[path] and (block := os.read(descriptor, _BLOCK)):
                digest.update(block)
                size += len(block)
                if on_block is not None:
                    on_block(block)
        if size != self.files[path]:
            raise PackageRefused("changed", shown(path), f"{shown(path)} has changed while the package was read")
        return FileDigest(size, digest.hexdigest())

    def read(self, path: str, most: int) -> bytes:
        """A file's bytes.

        Raises:
            PackageRefused: It is larger than `most` bytes, or has changed since the walk.
        """
        if self.files[path] > most:
            raise PackageRefused(
                "size",
                shown(path),
                f"{shown(path)} has {self.files[path]} bytes, more than the {most} that it may have",
            )
        content = bytearray()
        self.digest(path, content.extend)
        return bytes(content)

    @contextmanager
    def _open_root(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            kind = "a symbolic link" if self.folder.is_symlink() else "no folder"
            raise PackageRefused(
                "kind", "", f"{self.folder} is {kind}: a package is a folder, and its own path must name it"
            ) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _open(self, path: str) -> Iterator[int]:
        """Opens a file from the root down, following no link and waiting for no pipe."""
        *folders, name = path.split("/")
        with self._open_root() as root:
            opened = [root]
            try:
                for folder in folders:
                    opened.append(os.open(folder, _FOLDER_FLAGS, dir_fd=opened[-1]))
                opened.append(os.open(name, _FILE_FLAGS, dir_fd=opened[-1]))
                if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
                    raise OSError(errno.ENOTDIR, "not a plain file")
                yield opened[-1]
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.ENXIO, errno.EISDIR):
                    raise
                raise PackageRefused(
                    "changed", shown(path), f"{shown(path)} has changed while the package was read"
                ) from None
            finally:
                for descriptor in opened[1:]:
                    os.close(descriptor)

    def _walk(self, folder: int, prefix: str, depth: int) -> None:
        names = os.listdir(folder)
        if not names:
            place = prefix.rstrip("/")
            named = f"{shown(place)} is an empty folder" if place else f"{self.folder} is empty"
            raise PackageRefused("empty_folder", shown(place) if place else "", f"{named}, which no package holds")
        for name in sorted(names):
            path = prefix + name
            _check_name(name, path)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                self.files[path] = found.st_size
            elif stat.S_ISDIR(found.st_mode):
                if depth >= _MOST_DEPTH:
                    raise PackageRefused("kind", shown(path), f"{shown(path)} lies deeper than any file of a package")
                below = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
                try:
                    self._walk(below, f"{path}/", depth + 1)
                finally:
                    os.close(below)
            else:
                kind = next((text for is_kind, text in _KINDS if is_kind(found.st_mode)), "no plain file")
                raise PackageRefused("kind", shown(path), f"{shown(path)} is {kind}: a package holds plain files only")
            if len(self.files) > MOST_ENTRIES:
                raise PackageRefused("size", "", f"{self.folder} has more than {MOST_ENTRIES} files")


_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_plain_path(path: str) -> bool:
    """Whether a path is made of plain names only: no empty one, no dots alone, nothing that is hard to see.

    >>> is_plain_path("variables/variables.index"), is_plain_path("../x"), is_plain_path("a//b"), is_plain_path("ä")
    (True, False, False, False)
    """
    return all(name and _PLAIN.issuperset(name) and name.strip(".") for name in path.split("/"))


def _check_name(name: str, path: str) -> None:
    if not is_plain_path(name) or len(name) > 255:
        raise PackageRefused(
            "name",
            shown(os.fsencode(path)),
            f"the name {shown(os.fsencode(path))} holds more than letters, digits, dots, dashes and underscores",
        )
