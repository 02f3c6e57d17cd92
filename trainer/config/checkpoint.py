"""The `checkpoint` section: when the state is written to disk and which checkpoints stay."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from trainer.config.interval import IntervalOrAuto
from trainer.config.section import Section


class CheckpointConfig(Section):
    """Checkpoints are also written at the end of the run and when it is stopped."""

    every: IntervalOrAuto = Field(
        default="auto",
        description="between two checkpoints; auto: what costs least by what one holds the steps up and how often the "
        "run fails, within max_overhead and at most 300s",
    )
    keep: PositiveInt = Field(default=3, description="newest checkpoints that stay; the best one stays beside them")
    best_metric: str | None = Field(
        default=None, description="evaluation metric that finds the best checkpoint, e.g. accuracy"
    )
    best_mode: Literal["auto", "max", "min"] = Field(
        default="auto",
        description="whether the largest or the smallest is best; auto: the smallest of a loss or error, by its name",
    )
    max_overhead: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=0.005,
        description="most of the run's time that saving may take; a save beyond it is put off; null: no limit",
    )
