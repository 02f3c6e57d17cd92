"""The exit codes of `phalanx`, and the errors that lead to them."""

import traceback
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status says."""

    DONE = 0
    FAILED = 1
    WRONG_REQUEST = 2
    NO_RESOURCES = 3
    STOPPED = 130


class RequestError(ValueError):
    """The request cannot be carried out as it was made; the message says what to change."""


_NO_RESOURCES = (
    "ResourceExhaustedError",
    "NotEnoughDevices",
    "NcclNotUsable",
    "NoResources",
    "NoCapacity",
    "NoQuota",
    "TpuNotUsable",
    "TpuUnreachable",
)

OWN_PACKAGES = ("trainer", "cluster", "launch", "delivery")


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a command that ended with this error.

    A ValueError of ours is a mistake of the user's throughout. Bad data is one too, but a run that met it has failed.
    Classes of TensorFlow and of the trainer go by their name, because importing them would cost every command seconds.
    """
    name = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.STOPPED
    if isinstance(error, MemoryError) or name in _NO_RESOURCES:
        return ExitCode.NO_RESOURCES
    if name in ("Unavailable", "LeftBehind"):  # a cloud that did not answer, or may still hold what costs money
        return ExitCode.FAILED
    if isinstance(error, ValueError) and is_ours(error) and name != "DataError":
        return ExitCode.WRONG_REQUEST
    if type(error).__module__.startswith("cluster.") or name == "RunFolderError":
        # A run that another process holds, a folder that is none: the request, not the run, is at fault.
        return ExitCode.WRONG_REQUEST
    return ExitCode.FAILED


def explanation_of(error: BaseException) -> str:
    """What to print about an error: our own sentences as they are, one line about an unexpected one."""
    text = str(error).strip()
    if text and is_ours(error):
        return text
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: check the path, its permissions and the free space"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if lines[0] == "Graph execution error:":
        # TensorFlow goes on with the place, and says last, before the names of nodes, what is wrong.
        first = next((line for line in reversed(lines) if not line.startswith("[[")), first)
    return f"{type(error).__name__}: {first} (phalanx --debug shows where)"


def is_ours(error: BaseException) -> bool:
    """Whether this package raised the error, so that its message is a sentence for the user.

    Its class says so, or for a ValueError the place where it was raised: libraries raise that too, for other readers.
    """
    if type(error).__module__.partition(".")[0] in OWN_PACKAGES:
        return True
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in OWN_PACKAGES
