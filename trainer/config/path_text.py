"""Paths in a config, the only settings in which environment variables are replaced: `${DATA}/train-*.tfrecord`.

A `$` that belongs to a path is written `$$`, as in the config that a run writes down.
"""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, Field, PlainSerializer


def expand_variables(text: str) -> str:
    """Replace each `${NAME}` by the environment variable, `$$` by `$`, and a leading `~` by the home folder.

    Raises:
        ValueError: a variable is not set, or `$` is not followed by a name in braces.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if match[0] == "$$":
            return "$"
        if name is None:
            raise ValueError("must write a variable as ${NAME}, and a plain $ as $$: add the braces, or another $")
        if name not in os.environ:
            raise ValueError(f"must use variables that are set, and {name} is not: set it, or write the path out")
        return os.environ[name]

    return os.path.expanduser(re.sub(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)\})?", replace, text))


def _written(path: str) -> str:
    """The text that gives the path again when it is read."""
    return path.replace("$", "$$")


PathText = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(expand_variables),
    PlainSerializer(_written, return_type=str, when_used="json"),
]
"""A path or a pattern of paths, relative to the folder in which the command is typed."""
