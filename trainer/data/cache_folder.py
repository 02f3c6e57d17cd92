"""Where things that are made once and used again are kept: indexes, tokenised text."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.data.checks import DataError


def cache_path(kind: str) -> Path:
    """Gives the place of the folder of one kind of cached file.

    It lies in $PHALANX_CACHE_DIR, else in $XDG_CACHE_HOME/phalanx, else in ~/.cache/phalanx.
    """
    root = os.environ.get("PHALANX_CACHE_DIR")
    if not root:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache"), "phalanx")
    return Path(root, kind)


def cache_folder(kind: str) -> Path:
    """Gives the folder of one kind of cached file, made if it is missing.

    Raises:
        DataError: The folder cannot be made.
    """
    folder = cache_path(kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"the cache folder cannot be made ({error.strerror})"
        raise DataError(folder, "", rule, "set PHALANX_CACHE_DIR to a folder that can be written to") from error
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; the file written there takes the name `path` when all went well.

    Two processes that write the same file at once both succeed, and a reader sees none or a whole one.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes files that others may not read; a shared data folder is used by more than one person.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
