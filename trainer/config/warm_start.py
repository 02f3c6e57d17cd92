"""The `warm_start` section: weights that the model begins with."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from trainer.config.path_text import PathText
from trainer.config.section import Section


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error}): correct it") from None
    return text


Pattern = Annotated[str, AfterValidator(_check_pattern)]


class WarmStartConfig(Section):
    """Variables whose path and shape match are loaded; all others keep their initial values."""

    path: PathText = Field(description="a run folder, a checkpoint folder or a .keras file")
    include: tuple[Pattern, ...] = Field(default=(".*",), description="regular expressions of variable paths to load")
    exclude: tuple[Pattern, ...] = Field(default=(), description="regular expressions of variable paths to leave out")
