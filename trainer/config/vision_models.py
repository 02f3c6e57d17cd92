"""Options of the models of images beyond `cnn` and `resnet`."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.section import Section

DropRate = Annotated[float, Field(ge=0, lt=1)]


class ImageModel(Section):
    """What models of photographs have in common."""

    input_size: Annotated[int, Field(ge=8)] | None = Field(
        default=None,
        description="images are resized to this many pixels a side; without it, they stay as the data gives them",
    )


class BatchNormalisedModel(ImageModel):
    """Whose layers keep moving averages of what they saw."""

    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None,
        description="of the moving averages of batch normalisation; without it, the published one, which takes "
        "thousands of steps to settle",
    )
    dropout: DropRate = Field(default=0.2, description="share of the features before the last layer that are left out")


class EfficientNetV2Model(BatchNormalisedModel):
    """Convolutional network, scaled in depth and width together (Tan and Le 2021)."""

    name: Literal["efficientnet_v2"] = "efficientnet_v2"
    variant: Literal["b0", "b1", "b2", "b3", "s", "m", "l"] = "b0"


class MobileNetV3Model(BatchNormalisedModel):
    """Convolutional network for phones and cameras (Howard et al. 2019)."""

    name: Literal["mobilenet_v3"] = "mobilenet_v3"
    variant: Literal["small", "large"] = "small"
    width: Annotated[float, Field(gt=0, le=4)] = Field(default=1.0, description="multiplies the filters of each layer")


class ConvNextModel(ImageModel):
    """Convolutional network built like a transformer (Liu et al. 2022)."""

    name: Literal["convnext"] = "convnext"
    variant: Literal["atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge"] = "tiny"
    drop_path: DropRate = Field(
        default=0.0, description="share of the samples for which the last block is left out; less for those before"
    )


class VitModel(ImageModel):
    """Transformer on the patches of an image (Dosovitskiy et al. 2020)."""

    name: Literal["vit"] = "vit"
    patch: PositiveInt = Field(default=16, description="pixels a side of a patch; divides the image's sides")
    layers: PositiveInt = 6
    width: PositiveInt = 192
    heads: PositiveInt = 3
    feed_forward: PositiveInt | None = Field(
        default=None, description="width inside a feed-forward block; without it, 4 widths"
    )
    dropout: DropRate = Field(default=0.1, description="share of the outputs of each block that a step leaves out")
    pooling: Literal["token", "mean"] = Field(
        default="token", description="what the class is read from: a learned token, or the mean of all patches"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "VitModel":
        if self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} must be a multiple of model.heads={self.heads}: "
                f"set model.width={-(-self.width // self.heads) * self.heads}"
            )
        return self


class UnetModel(Section):
    """Encoder and decoder with bridges between them, for a class for each pixel (Ronneberger et al. 2015)."""

    name: Literal["unet"] = "unet"
    filters: tuple[PositiveInt, ...] = Field(
        default=(16, 32, 64, 128), min_length=2, description="of each level; each but the first halves the image"
    )
    dropout: DropRate = Field(default=0.1, description="share of the lowest level's outputs that a step leaves out")
