"""Options of verification: the data source `glyphs` and the task `verification`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from trainer.config.data import DataConfig, Fraction
from trainer.config.section import Section


class GlyphsData(DataConfig):
    """Letters of many alphabets in twelve typefaces of matplotlib, 28 x 28 x 1; a part of the letters is held out."""

    held_out: ClassVar[str] = "test"
    name: Literal["glyphs"] = "glyphs"
    held_out_fraction: Fraction = Field(default=0.25, description="of the letters, which training never sees")


class VerificationTask(Section):
    """Are two samples of the same class, even one that training never saw? Embeddings with an angular margin."""

    name: Literal["verification"] = "verification"
    width: PositiveInt = Field(default=128, description="numbers in the embedding of a sample")
    margin: Annotated[float, Field(ge=0, lt=1.57)] = Field(
        default=0.5, description="radians by which a sample must be nearer to its class than to all others"
    )
    scale: PositiveFloat = Field(
        default=64.0, description="what cosines are multiplied by in the loss; fewer classes want less"
    )
    sub_centres: PositiveInt = Field(
        default=1, description="centres of a class, of which the nearest counts; 3 for labels with mistakes"
    )
    false_accepts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.01, 0.001),
        min_length=1,
        description="shares of wrong pairs taken for right ones, at which the share of right ones found is reported",
    )
