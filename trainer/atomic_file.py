"""Files that are either whole or absent, also after a kill or a power failure."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replaces the file's text in one atomic, durable step.

    Raises:
        OSError: the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Puts a folder's entries (creations, renames) on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> int:
    """Puts every file and folder below a folder on the disk; returns the bytes of the files."""
    size = 0
    for place, _, files in os.walk(path):
        for name in files:
            with (Path(place) / name).open("rb") as file:
                os.fsync(file.fileno())
                size += os.fstat(file.fileno()).st_size
        sync_folder(Path(place))
    return size
