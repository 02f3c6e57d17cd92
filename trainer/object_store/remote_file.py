"""An object as a file: for libraries that read from whatever can be read and sought."""

import io
from pathlib import PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from trainer.object_store.range_reader import RangeReader
from trainer.object_store.stores import StoredObject, changed

_AHEAD_BYTES = 1 << 20
"""Bytes that one of several threads brings at a time."""


class RemoteFile:
    """Stands where a path stands: it has a name, and opens.

    Args:
        one: The object.
        reader: Reads it.
    """

    def __init__(self, one: StoredObject, reader: RangeReader) -> None:
        self._one, self._reader = one, reader
        self.name = PurePosixPath(urlsplit(one.url).path).name

    def __str__(self) -> str:
        return self._one.url

    @property
    def state(self) -> tuple[str, int, str]:
        """URL, bytes and version, as the store said when the object was found."""
        return self._one.url, self._one.size, self._one.version

    def check_unchanged(self) -> None:
        """Asks the store once more.

        Raises:
            DataError: The object has changed or is gone, or the store cannot be reached.
        """
        if self._reader.store.look(self._one.url) != self._one:
            raise changed(self._one)

    def fetch_ahead(self, start: int, stop: int) -> None:
        """Has bytes [start, stop) brought into the cache by threads; returns at once."""
        pieces = range(start, min(stop, self._one.size), _AHEAD_BYTES)
        self._reader.fetch_ahead((self._one, first, min(stop, first + _AHEAD_BYTES)) for first in pieces)

    def open(self) -> BinaryIO:
        """A stream at its beginning."""
        return cast(BinaryIO, io.BufferedReader(_Stream(self._one, self._reader)))


class _Stream(io.RawIOBase):
    """Reads wherever it is told to."""

    def __init__(self, one: StoredObject, reader: RangeReader) -> None:
        self._one, self._reader, self._at = one, reader, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._one.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        stop = min(self._one.size, self._at + len(buffer))
        held = self._reader.read(self._one, self._at, stop)
        buffer[: len(held)] = held
        self._at += len(held)
        return len(held)
