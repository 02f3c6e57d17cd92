"""Which checkpoint a command was asked for."""

from typing import Literal

from launch.exit_code import RequestError


def checkpoint_choice(text: str) -> Literal["last", "best"] | int:
    """What `--checkpoint` says: the newest, the best by `checkpoint.best_metric`, or a step.

    Raises:
        RequestError: It is none of these.
    """
    if text == "last" or text == "best":
        return text
    if not text.isascii() or not text.isdigit():
        raise RequestError(f"--checkpoint={text} must be last, best or a step: choose one of them")
    return int(text)
