"""The raw files of a request, cut into chunks, and the guard against files that change meanwhile."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer.data.checks import DataError
from trainer.data.places import find_files
from trainer.preparation.request import Chunk, RawFile

SETTING = "RAW"
"""What the command line calls the input."""
MOST_FILES = 1000
"""Of a chunk: small files cost by their number rather than by their bytes."""


def listed(pattern: str) -> list[RawFile]:
    """The files of a pattern, sorted, named from the folder that they have in common.

    Raises:
        DataError: There are none, or one cannot be read.
    """
    paths = find_files(pattern, SETTING)
    root = Path(os.path.commonpath([path.parent.absolute() for path in paths]))
    return [raw_file(path.absolute(), path.absolute().relative_to(root).as_posix()) for path in paths]


def raw_file(path: Path, name: str) -> RawFile:
    """Looks at a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return RawFile(path=str(path), name=name, size=status.st_size, modified_ns=status.st_mtime_ns)


def grouped(files: Sequence[RawFile], chunk_bytes: int) -> list[Chunk]:
    """Chunks of neighbouring files: of up to `chunk_bytes`, but at least one file, and at most `MOST_FILES`."""
    chunks: list[list[RawFile]] = []
    size = 0
    for file in files:
        if not chunks or size + file.size > chunk_bytes or len(chunks[-1]) == MOST_FILES:
            chunks.append([])
            size = 0
        chunks[-1].append(file)
        size += file.size
    return [Chunk(files=tuple(group)) for group in chunks]


def cut(files: Iterable[RawFile], chunk_bytes: int) -> list[Chunk]:
    """Chunks of up to `chunk_bytes` of one file each."""
    return [
        Chunk(files=(file,), start=start, stop=min(start + chunk_bytes, file.size))
        for file in files
        for start in range(0, file.size, chunk_bytes)
    ]


@contextmanager
def unchanged(file: RawFile) -> Iterator[Path]:
    """Gives the path of a file, which must be as it was found before and after it is read.

    Raises:
        DataError: It is not, or it cannot be read.
    """
    path = Path(file.path)
    _check(path, file)
    try:
        yield path
    except OSError as error:
        raise _unreadable(path, error) from error
    _check(path, file)


def _check(path: Path, file: RawFile) -> None:
    if raw_file(path, file.name) != file:
        raise DataError(path, "", "it changed while the data were prepared", "give the command again")


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(path, "", f"it cannot be read ({error.strerror})", "make it readable, and give the command again")
