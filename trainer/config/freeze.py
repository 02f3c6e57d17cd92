"""The `freeze` section: layers that keep their weights, for the whole training or for its beginning."""

from pydantic import Field

from trainer.config.interval import IntervalOfSteps
from trainer.config.section import Section
from trainer.config.warm_start import Pattern


class FreezeConfig(Section):
    """Layers that are not trained: their weights stay, and batch normalisation in them uses its moving averages."""

    layers: tuple[Pattern, ...] = Field(
        min_length=1, description="regular expressions of layer paths, as in variable paths without their last part"
    )
    until: IntervalOfSteps | None = Field(
        default=None, description="how long, in steps or epochs from the start of the run; null: for ever"
    )
