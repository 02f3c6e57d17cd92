"""The `strategy` section: over which devices and workers a step is spread."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.byte_size import ByteSize
from trainer.config.section import Section


class StrategyConfig(Section):
    """How a step is distributed."""

    name: Literal["one_device", "mirrored", "multi_worker_mirrored"] = Field(
        default="one_device", description="one device, a replica on each of this machine, or on each of every worker"
    )
    devices: PositiveInt | None = Field(
        default=None,
        description="replicas of mirrored; without it, one on every device; more than CPUs makes logical ones",
    )
    bytes_per_pack: ByteSize = Field(
        default=4 * 2**20,
        description="of multi_worker_mirrored: gradients that travel together, in bytes; packs overlap on their way",
    )
    communication: Literal["auto", "ring", "nccl"] = Field(
        default="auto",
        description="how multi_worker_mirrored adds up: auto is a ring between CPUs and NCCL between GPUs",
    )
    compression: Literal["none", "bfloat16"] = Field(
        default="none",
        description="type in which multi_worker_mirrored sends gradients; bfloat16 halves the bytes and the precision",
    )

    @model_validator(mode="after")
    def _one_device_is_one(self) -> "StrategyConfig":
        if self.name == "one_device" and self.devices not in (None, 1):
            raise ValueError(
                f"strategy.devices={self.devices} must be 1 with strategy.name=one_device: set strategy.name=mirrored"
            )
        if self.name == "multi_worker_mirrored" and self.devices is not None:
            raise ValueError(
                f"strategy.devices={self.devices} must not be set with strategy.name=multi_worker_mirrored, which has "
                "a replica on every GPU of a worker, or one on its CPU: remove it"
            )
        return self

    @property
    def known_replicas(self) -> int | None:
        """Replicas, as far as the config says; None where it depends on machines or workers."""
        return 1 if self.name == "one_device" else self.devices
