"""The `freeze` section: layers that keep their weights, for the whole training or for its beginning."""

from typing import Annotated

from pydantic import AfterValidator, Field

from trainer.config.interval import Interval
from trainer.config.section import Section
from trainer.config.warm_start import Pattern


def _in_steps_or_epochs(interval: Interval) -> Interval:
    if interval.unit == "s":
        raise ValueError('must be in steps or epochs, as in "200st" or "1ep": a clock differs from run to run')
    return interval


class FreezeConfig(Section):
    """Layers that are not trained: their weights stay, and batch normalisation in them uses its moving averages."""

    layers: tuple[Pattern, ...] = Field(
        min_length=1, description="regular expressions of layer paths, as in variable paths without their last part"
    )
    until: Annotated[Interval, AfterValidator(_in_steps_or_epochs)] | None = Field(
        default=None, description="how long, in steps or epochs from the start of the run; null: for ever"
    )
