"""Makes sure that a folder is one and the same on several machines, and that all of them can write to it."""

import contextlib
import secrets
from pathlib import Path

_PREFIX = ".probe-"


class Probe:
    """A file in the folder that tells other machines' folder of this path from the same one.

    Args:
        folder: the folder.

    Attributes:
        name: what `answer_probe` needs to know.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Probe(folder) as probe:
    ...     answer_probe(folder, probe.name, "node1")
    >>> list(folder.iterdir())
    []
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"{_PREFIX}{secrets.token_hex(8)}"

    def __enter__(self) -> "Probe":
        with contextlib.suppress(OSError):  # left by a launch that was killed
            for old in self._folder.glob(f"{_PREFIX}*"):
                old.unlink(missing_ok=True)
        (self._folder / self.name).touch()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            (self._folder / self.name).unlink()


def answer_probe(folder: Path, name: str, host: str, setting: str = "run.dir") -> None:
    """Checks, on a machine, that its folder of this path is the one with the probe, and that it can write there.

    `setting` is what names the folder, for the message.

    Raises:
        ValueError: it is another folder, or it cannot be written. One sentence for the user.
    """
    if not (folder / name).exists():
        raise ValueError(
            f"{folder} there is not the folder that it is here: set {setting} to a path on storage that all hosts share"
        )
    try:
        written = folder / f"{name}-{host}"
        written.write_bytes(b"")
        written.unlink()
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written there ({error.strerror}): give the user that runs Ray the right to"
        ) from None
