"""The `strategy` section: over which devices and workers a step is spread."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.byte_size import ByteSize
from trainer.config.section import Section

OF_WORKERS = ("elastic", "multi_worker_mirrored", "horovod", "parameter_server")
"""The strategies that need several workers."""


class StrategyConfig(Section):
    """How a step is distributed."""

    name: Literal[
        "auto", "one_device", "mirrored", "elastic", "multi_worker_mirrored", "horovod", "parameter_server", "tpu"
    ] = Field(
        default="auto",
        description="one device; a replica on each of this machine; workers that come and go (elastic); a replica "
        "on each device of every worker, added up by TensorFlow; one device in each worker, added up by Horovod; "
        "weights on parameter servers; or a replica on each core of a Cloud TPU. "
        "auto chooses among the first four and says why",
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
    compression: Literal["none", "bfloat16", "float16"] = Field(
        default="none",
        description="type in which gradients are sent: bfloat16 by multi_worker_mirrored, float16 by horovod; either "
        "halves the bytes and the precision",
    )
    parameter_servers: PositiveInt = Field(
        default=1, description="of parameter_server: how many of the workers hold the weights instead of computing"
    )
    synchronous: bool = Field(
        default=True,
        description="of parameter_server: every step uses the weights of the one before, so that the curve is that of "
        "one device; false: no worker waits for another",
    )
    min_shard_bytes: ByteSize = Field(
        default=256 * 2**10,
        description="of parameter_server: variables from this size on are divided among the servers by rows, and "
        "of embeddings from this size on only the rows of a batch travel",
    )

    tpu: str = Field(
        default="local",
        min_length=1,
        description="of tpu: local for the chips of this machine, or the name of a Cloud TPU, of one host or several",
    )
    tpu_zone: str | None = Field(default=None, description="of tpu: zone of a named one, such as us-central1-a")
    tpu_project: str | None = Field(default=None, description="of tpu: project of a named one")

    @model_validator(mode="after")
    def _one_device_is_one(self) -> "StrategyConfig":
        if self.name == "one_device" and self.devices not in (None, 1):
            raise ValueError(
                f"strategy.devices={self.devices} must be 1 with strategy.name=one_device: set strategy.name=mirrored"
            )
        if self.name in OF_WORKERS and self.devices is not None:
            raise ValueError(
                f"strategy.devices={self.devices} must not be set with strategy.name={self.name}, which takes the "
                "devices that each worker has: remove it"
            )
        if self.name == "horovod" and self.compression == "bfloat16":
            raise ValueError(
                "strategy.compression=bfloat16 is a type that Horovod cannot add up: set strategy.compression=float16"
            )
        if self.name != "horovod" and self.compression == "float16":
            raise ValueError(
                f"strategy.compression=float16 must have strategy.name=horovod, not {self.name}: set "
                "strategy.compression=bfloat16"
            )
        if self.name == "tpu" and self.devices is not None:
            raise ValueError(
                f"strategy.devices={self.devices} must not be set with strategy.name=tpu, which takes all cores of "
                "the slice: remove it"
            )
        return self

    @property
    def known_replicas(self) -> int | None:
        """Replicas, as far as the config says; None where it depends on machines or workers."""
        return 1 if self.name == "one_device" else self.devices

    @property
    def is_asynchronous(self) -> bool:
        """Whether workers do not wait for each other."""
        return self.name == "parameter_server" and not self.synchronous
