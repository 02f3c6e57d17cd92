"""The `tied` section: weights that stay zero, or equal, while a sparse or clustered model is trained."""

from pydantic import Field, model_validator
from typing_extensions import Self

from trainer.config.section import Section
from trainer.config.warm_start import Pattern


class TiedConfig(Section):
    """What a step keeps of the weights that it finds: it is read off the weights themselves, and is no state."""

    variables: tuple[Pattern, ...] = Field(min_length=1, description="regular expressions of variable paths")
    zeros: bool = Field(default=True, description="weights that are 0 stay 0")
    equal: bool = Field(
        default=False,
        description="weights of one variable that are equal stay equal: each takes the mean of their updates",
    )

    @model_validator(mode="after")
    def _ties_something(self) -> Self:
        if not (self.zeros or self.equal):
            raise ValueError("tied.zeros=false with tied.equal=false ties nothing: set one to true, or remove tied")
        return self
