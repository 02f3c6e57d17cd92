"""The exit codes of `phalanx`, and the errors that lead to them."""

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


OWN_PACKAGES = ("trainer", "cluster", "launch", "delivery")


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a command that ended with this error.

    A ValueError is a mistake of the user's throughout. Bad data is one too, but a run that met it has failed. Classes
    of TensorFlow and of the trainer go by their name, because importing them here would cost every command seconds.
    """
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.STOPPED
    if isinstance(error, MemoryError) or type(error).__name__ in ("ResourceExhaustedError", "NotEnoughDevices"):
        return ExitCode.NO_RESOURCES
    if isinstance(error, ValueError) and type(error).__name__ != "DataError":
        return ExitCode.WRONG_REQUEST
    if type(error).__module__.startswith("cluster.") or type(error).__name__ == "RunFolderError":
        # A run that another process holds, a folder that is none: the request, not the run, is at fault.
        return ExitCode.WRONG_REQUEST
    return ExitCode.FAILED


def explanation_of(error: BaseException) -> str:
    """What to print about an error: our own sentences as they are, one line about an unexpected one."""
    text = str(error).strip()
    ours = type(error).__module__.partition(".")[0] in OWN_PACKAGES
    if text and (ours or isinstance(error, ValueError)):
        return text
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}: check the path, its permissions and the free space"
    first = text.splitlines()[0] if text else "no message"
    return f"{type(error).__name__}: {first} (phalanx --debug shows where)"
