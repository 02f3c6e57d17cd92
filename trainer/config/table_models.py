"""Options of the models of tables beyond `tabular`."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.section import Section

DropRate = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["relu", "gelu", "silu", "tanh", "elu", "leaky_relu"]


class TableModel(Section):
    """What models with embedded columns and dense layers on them have in common."""

    hidden: tuple[PositiveInt, ...] = Field(default=(128, 64), description="widths of the hidden layers")
    activation: Activation = "relu"
    dropout: DropRate = Field(default=0.1, description="share of each hidden layer's outputs that a step leaves out")
    embedding: PositiveInt = Field(default=8, description="most numbers that stand for one category")


class WideAndDeepModel(TableModel):
    """A linear model of categories and their crossings beside dense layers on embeddings (Cheng et al. 2016)."""

    name: Literal["wide_and_deep"] = "wide_and_deep"
    crosses: tuple[tuple[str, ...], ...] = Field(
        default=(), description="columns of categories whose combinations have weights, e.g. [[carrier, origin]]"
    )
    cross_buckets: Annotated[int, Field(ge=2, le=2**31 - 1)] = Field(
        default=10_000, description="most weights of one crossing; of more combinations some share a weight"
    )

    @model_validator(mode="after")
    def _crossings_are_of_several_columns(self) -> "WideAndDeepModel":
        for cross in self.crosses:
            if len(cross) < 2 or len(set(cross)) < len(cross):
                raise ValueError(
                    f"model.crosses has {list(cross)}, and a crossing is one of at least two different columns: "
                    "add a column to it, or leave it out"
                )
        if len({frozenset(cross) for cross in self.crosses}) < len(self.crosses):
            raise ValueError("model.crosses has the same columns twice: leave one of the crossings out")
        return self


class DcnModel(TableModel):
    """Layers that cross every column with every other one, and dense layers (DCN-v2, Wang et al. 2020)."""

    name: Literal["dcn"] = "dcn"
    cross_layers: PositiveInt = Field(default=2, description="each raises the degree of the products by one")
    low_rank: PositiveInt | None = Field(
        default=None, description="rank of the cross layers' matrices; without it, they are full"
    )
    structure: Literal["stacked", "parallel"] = Field(
        default="stacked", description="dense layers after the cross layers, or beside them"
    )
