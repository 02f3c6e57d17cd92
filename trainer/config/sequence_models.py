"""Options of the models that read sequences: series of numbers and, to both sides, of tokens."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.section import Section

DropRate = Annotated[float, Field(ge=0, lt=1)]


class EncoderModel(Section):
    """What encoders have in common: every position sees every other one."""

    layers: PositiveInt = 2
    width: PositiveInt = 128
    heads: PositiveInt = 4
    feed_forward: PositiveInt | None = Field(
        default=None, description="width inside a feed-forward block; without it, 4 widths"
    )
    dropout: DropRate = Field(default=0.1, description="share of the outputs of each block that a step leaves out")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "EncoderModel":
        if self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} must be a multiple of model.heads={self.heads}: "
                f"set model.width={-(-self.width // self.heads) * self.heads}"
            )
        return self


class BertModel(EncoderModel):
    """Bidirectional encoder of tokens, to fill in hidden ones or to classify a text (Devlin et al. 2018)."""

    name: Literal["bert"] = "bert"


class TcnModel(Section):
    """Dilated causal convolutions over time, each level looking twice as far back (Bai et al. 2018)."""

    name: Literal["tcn"] = "tcn"
    levels: Annotated[int, Field(ge=1, le=16)] = Field(
        default=5, description="blocks of two convolutions; what they see together is 1 + 2 (kernel - 1) (2^levels - 1)"
    )
    filters: PositiveInt = 32
    kernel: Annotated[int, Field(ge=2)] = Field(default=3, description="steps that a convolution takes together")
    dropout: DropRate = Field(default=0.1, description="share of each convolution's outputs that a step leaves out")


class TransformerForecasterModel(EncoderModel):
    """Encoder over the past steps of a series; the forecast is read from the last one."""

    name: Literal["transformer_forecaster"] = "transformer_forecaster"
    width: PositiveInt = 64
