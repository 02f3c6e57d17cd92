"""The `model` section: a model of this package, or an importable function that returns one."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.choice import ChosenByName
from trainer.config.recommendation import DlrmModel, TwoTowerModel
from trainer.config.section import Section
from trainer.config.sequence_models import BertModel, TcnModel, TransformerForecasterModel
from trainer.config.table_models import DcnModel, WideAndDeepModel
from trainer.config.vision_models import ConvNextModel, EfficientNetV2Model, MobileNetV3Model, UnetModel, VitModel

IMPORTABLE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""Pattern of `package.module:function`."""

Activation = Literal["relu", "gelu", "silu", "tanh", "elu", "leaky_relu"]
DropoutRate = Annotated[float, Field(ge=0, lt=1)]


class MlpModel(Section):
    """Dense layers on the flattened sample."""

    name: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = Field(default=(128,), description="widths of the hidden layers")
    activation: Activation = "relu"
    dropout: DropoutRate = Field(default=0.2, description="share of each hidden layer's outputs that a step leaves out")


class CnnModel(Section):
    """3x3 convolutions, each with a 2x2 max pooling, and one dense layer; for small images."""

    name: Literal["cnn"] = "cnn"
    filters: tuple[PositiveInt, ...] = Field(
        default=(32, 64), min_length=1, description="of each convolution; each halves the image"
    )
    dense: PositiveInt = Field(default=128, description="width of the dense layer")
    dropout: DropoutRate = Field(default=0.25, description="share of the dense layer's outputs that a step leaves out")


class ResnetModel(Section):
    """Residual network for images (He et al. 2015)."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    input_size: Annotated[int, Field(ge=32)] | None = Field(
        default=None,
        description="images are resized to this many pixels a side; without it, they stay as the data gives them",
    )


class TabularModel(Section):
    """Dense layers on embedded categories and normalised numbers."""

    name: Literal["tabular"] = "tabular"
    hidden: tuple[PositiveInt, ...] = Field(default=(128, 64), description="widths of the hidden layers")
    activation: Activation = "relu"
    dropout: DropoutRate = Field(default=0.1, description="share of each hidden layer's outputs that a step leaves out")
    embedding: PositiveInt = Field(default=8, description="most numbers that stand for one category")


class TransformerLmModel(Section):
    """Decoder-only transformer with normalisation before each block; its context is the data's."""

    name: Literal["transformer_lm"] = "transformer_lm"
    layers: PositiveInt = 2
    width: PositiveInt = 128
    heads: PositiveInt = 4
    kv_heads: PositiveInt | None = Field(
        default=None, description="heads of keys and values, shared by groups of heads; without it, one for each head"
    )
    feed_forward: PositiveInt | None = Field(
        default=None, description="width inside a feed-forward block; without it, 4 widths"
    )
    dropout: DropoutRate = Field(
        default=0.1, description="share of the outputs of embedding and blocks that a step leaves out"
    )
    positions: Literal["learned", "rotary"] = "learned"
    tie_embedding: bool = Field(default=True, description="the output layer uses the weights of the token embedding")
    experts: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="feed-forward networks of each block, of which a token takes few; without it, one"
    )
    experts_per_token: PositiveInt = Field(default=1, description="experts that a token passes through")
    expert_balance: Annotated[float, Field(ge=0)] = Field(
        default=0.01, description="weight of the loss that keeps experts equally busy"
    )
    router_z: Annotated[float, Field(ge=0)] = Field(
        default=0.001, description="weight of the loss that keeps the logits of the choice small"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "TransformerLmModel":
        if self.width % self.heads:
            raise ValueError(
                f"model.width={self.width} must be a multiple of model.heads={self.heads}: "
                f"set model.width={-(-self.width // self.heads) * self.heads}"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            fewer = next(number for number in range(self.kv_heads, 0, -1) if self.heads % number == 0)
            raise ValueError(
                f"model.kv_heads={self.kv_heads} must divide model.heads={self.heads}, whose groups share one each: "
                f"set model.kv_heads={fewer}"
            )
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"model.positions=rotary turns pairs of numbers, but model.width={self.width} with "
                f"model.heads={self.heads} gives heads of odd width: set model.width={2 * self.width}"
            )
        return self

    @model_validator(mode="after")
    def _experts_are_there_to_choose(self) -> "TransformerLmModel":
        if self.experts is None and self.experts_per_token > 1:
            raise ValueError(
                f"model.experts_per_token={self.experts_per_token} chooses among model.experts, of which there are "
                "none: set model.experts=8, or leave it out"
            )
        if self.experts is not None and self.experts_per_token >= self.experts:
            raise ValueError(
                f"model.experts_per_token={self.experts_per_token} must be below model.experts={self.experts}, or "
                f"nothing is chosen: set model.experts_per_token={self.experts - 1} or less"
            )
        return self


class CustomModel(Section):
    """A model of the user's own: a function that returns a `keras.Model` ending in logits."""

    name: Annotated[str, Field(pattern=IMPORTABLE, description="package.module:function")]
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the function")


ModelConfig = Annotated[
    MlpModel
    | CnnModel
    | ResnetModel
    | EfficientNetV2Model
    | MobileNetV3Model
    | ConvNextModel
    | VitModel
    | UnetModel
    | TabularModel
    | WideAndDeepModel
    | DcnModel
    | TwoTowerModel
    | DlrmModel
    | TransformerLmModel
    | BertModel
    | TcnModel
    | TransformerForecasterModel
    | CustomModel,
    ChosenByName(),
]
