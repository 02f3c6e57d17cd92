"""The `export` section: the SavedModel that a finished run leaves."""

from pydantic import Field

from trainer.config.section import Section


class ExportConfig(Section):
    """What is written to `export/1/` at the end."""

    enabled: bool = Field(default=True, description="write a SavedModel when the run is done")
    ema: bool = Field(default=True, description="export the averaged weights where train.ema is set")
