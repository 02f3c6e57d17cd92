"""The `observe` section: what is recorded beside metrics.jsonl and journal.jsonl."""

from pydantic import Field, PositiveInt, model_validator

from trainer.config.interval import Interval
from trainer.config.section import Section


class ObserveConfig(Section):
    """Recordings; none of them changes the training."""

    tensorboard: bool = Field(default=True, description="write scalars for TensorBoard")
    histograms_every: Interval | None = Field(
        default=None, description="between two histograms of all weights; null: none"
    )
    profile_steps: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="first and last step of a profiler trace, counted from 1, e.g. [100, 110]"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "ObserveConfig":
        if self.profile_steps is not None and self.profile_steps[0] > self.profile_steps[1]:
            raise ValueError(
                f"observe.profile_steps={list(self.profile_steps)} must be the first and the last step: swap them"
            )
        if self.histograms_every is not None and not self.tensorboard:
            raise ValueError(
                f"observe.histograms_every={self.histograms_every} needs observe.tensorboard=true: "
                "set it, or remove histograms_every"
            )
        return self
