"""The `evaluate` section: when and how the held-out split is measured."""

from pydantic import Field, PositiveInt

from trainer.config.interval import Interval
from trainer.config.section import Section


class EvaluateConfig(Section):
    """Evaluations go over the whole held-out split."""

    every: Interval | None = Field(default=Interval(1, "ep"), description="between two evaluations; null: none")
    batch_size: PositiveInt | None = Field(default=None, description="without it, data.batch_size; changes no metric")
    ema: bool = Field(default=True, description="measure the averaged weights where train.ema is set")
