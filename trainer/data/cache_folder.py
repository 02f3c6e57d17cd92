"""Where things that are made once and used again are kept: indexes, tokenised text."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.data.checks import DataError


def cache_folder(kind: str) -> Path:
    """Gives the folder of one kind of cached file, made if it is missing.

    It lies in $PHALANX_CACHE_DIR, else in $XDG_CACHE_HOME/phalanx, else in ~/.cache/phalanx.

    Raises:
        DataError: The folder cannot be made or written to.
    """
    root = os.environ.get("PHALANX_CACHE_DIR")
    if not root:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(Path.home(), ".cache"), "phalanx")
    folder = Path(root, kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise _not_writable(folder, None)
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


def _not_writable(folder: Path, error: OSError | None) -> DataError:
    reason = f" ({error.strerror})" if error else ""
    return DataError(
        folder, "", f"the cache folder cannot be written to{reason}", "set PHALANX_CACHE_DIR to a folder that can be"
    )
