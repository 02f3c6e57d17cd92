"""The `elastic` section: what workers that come and go do beside taking steps together."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from trainer.config.byte_size import ByteSize
from trainer.config.interval import IntervalOfSteps
from trainer.config.section import Section


class ElasticConfig(Section):
    """Options of strategy.name=elastic, also where strategy.name=auto chooses it."""

    check_every: IntervalOfSteps | None = Field(
        default=None,
        description="how often two workers compute the same part of a step and compare it to the bit, so that a "
        "machine that computes wrongly is found; null: never",
    )

    shard_optimizer: bool = Field(
        default=False,
        description="each worker keeps and updates only a share of the optimizer's state, of which another one has a "
        "copy; saves memory from three workers on, and the weights travel in every step",
    )

    outer_every: PositiveInt | None = Field(
        default=None,
        description="steps between two meetings of the workers: in between each part of the batch trains a replica of "
        "its own, and then an outer optimizer takes a step along their mean difference; null: they meet in every step",
    )
    outer_learning_rate: PositiveFloat = Field(
        default=0.7, description="of the outer optimizer; 1 with no momentum takes the mean of the replicas as it is"
    )
    outer_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="of the outer optimizer, in Nesterov's form"
    )

    compression: Literal["none", "bfloat16", "float16", "top_k"] = Field(
        default="none",
        description="how gradients of large tensors are rounded before they are added up, so that fewer bytes travel "
        "between hosts: to 16 bits, or to the largest numbers, the rest being added to the next gradients",
    )
    top_k: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.01, description="with compression=top_k, about which share of the numbers of a tensor travels"
    )

    overlap: Literal["auto", "always", "never"] = Field(
        default="never",
        description="whether gradients of the last layers are added up while those of earlier ones are computed; auto: "
        "between hosts, where no XLA program computes them all; always: on one host too, and train.xla_scope=auto "
        "leaves gradients out of XLA",
    )
    bytes_per_bucket: Annotated[ByteSize, Field(ge=64 * 2**10)] = Field(
        default=4 * 2**20, description="gradients that are added up together with overlap, at least, in bytes"
    )

    nccl: Literal["auto", "exact", "fast", "off"] = Field(
        default="auto",
        description="whether gradients are added up between GPUs by NCCL, which takes the extra nccl and a GPU of its "
        "own for each worker: exact, with one curve for any number of workers; fast, in NCCL's order; off; or auto: "
        "exact where all workers can",
    )

    @property
    def given(self) -> dict[str, str]:
        """The settings that are not their defaults, by key, as a config would have them."""
        values, defaults = self.model_dump(mode="json"), type(self)().model_dump(mode="json")
        return {name: _plain(value) for name, value in values.items() if value != defaults[name]}


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
