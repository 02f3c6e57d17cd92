"""The `run` section: what the run is called and where its folder lies."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from trainer.config.path_text import PathText
from trainer.config.section import Section


class PlaceConfig(Section):
    """The run folder is `dir/name`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = Field(
        default="run", description="letters, digits, dots, dashes; without it, the name of the config file"
    )
    dir: PathText = Field(default="runs", description="the folder that holds run folders")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.dir) / self.name
