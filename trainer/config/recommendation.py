"""Options of recommendation: the source `movielens`, the models `two_tower` and `dlrm`, the task `retrieval`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from trainer.config.data import DataConfig, Fraction
from trainer.config.path_text import PathText
from trainer.config.section import Section
from trainer.config.table_models import Activation, DropRate


class MovielensData(DataConfig):
    """100,000 ratings of 1,682 films by 943 people (MovieLens-100k); the last ones of each person are held out."""

    held_out: ClassVar[str] = "test"
    name: Literal["movielens"] = "movielens"
    kind: Literal["retrieval", "ranking"] = Field(
        default="retrieval", description="which films does somebody rate, or: does somebody like a film"
    )
    path: PathText = Field(
        default="package:recbole/dataset_example/ml-100k", description="a folder of ml-100k.inter, .item and .user"
    )
    held_out_fraction: Fraction = Field(default=0.2, description="of each person's ratings, the newest ones")
    liked_from: Annotated[float, Field(gt=1, le=5)] = Field(
        default=4.0, description="ranking: stars from which on a film counts as liked"
    )


class TwoTowerModel(Section):
    """One network for people and one for items, whose vectors are close where they fit (Covington et al. 2016)."""

    name: Literal["two_tower"] = "two_tower"
    hidden: tuple[PositiveInt, ...] = Field(default=(64,), description="widths of the hidden layers of each tower")
    activation: Activation = "relu"
    dropout: DropRate = Field(default=0.1, description="share of each hidden layer's outputs that a step leaves out")
    embedding: PositiveInt = Field(default=32, description="most numbers that stand for one category")
    normalise: bool = Field(default=True, description="all vectors have length 1")


class DlrmModel(Section):
    """Products of every pair of embeddings between dense layers, for clicks and likes (Naumov et al. 2019)."""

    name: Literal["dlrm"] = "dlrm"
    bottom: tuple[PositiveInt, ...] = Field(default=(32,), description="widths of the layers on the numbers")
    top: tuple[PositiveInt, ...] = Field(default=(64, 32), description="widths of the layers on the products")
    activation: Activation = "relu"
    dropout: DropRate = Field(default=0.1, description="share of each hidden layer's outputs that a step leaves out")
    embedding: PositiveInt = Field(default=16, description="numbers that stand for one category, or for all numbers")


class RetrievalTask(Section):
    """Which items of all fit somebody: vectors of people and of items."""

    name: Literal["retrieval"] = "retrieval"
    width: PositiveInt = Field(default=32, description="numbers in the vector of a person or an item")
    temperature: PositiveFloat = Field(default=0.1, description="what products of vectors are divided by in the loss")
    k: tuple[PositiveInt, ...] = Field(
        default=(10, 50), min_length=1, description="lengths of the lists for which recall and NDCG are reported"
    )
