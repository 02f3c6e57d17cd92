"""Paths in a config, the only settings in which environment variables are replaced: `${DATA}/train-*.tfrecord`."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, Field


def expand_variables(text: str) -> str:
    """Replace each `${NAME}` by the environment variable, and a leading `~` by the home folder.

    Raises:
        ValueError: a variable is not set, or `$` is not followed by a name in braces.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            raise ValueError("must write a variable as ${NAME}: add the braces and the name")
        if name not in os.environ:
            raise ValueError(f"must use variables that are set, and {name} is not: set it, or write the path out")
        return os.environ[name]

    return os.path.expanduser(re.sub(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\})?", replace, text))


PathText = Annotated[str, Field(min_length=1), AfterValidator(expand_variables)]
"""A path or a pattern of paths, relative to the folder in which the command is typed."""
