"""The `strategy` section: over how many devices of this machine a step is spread."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.section import Section


class StrategyConfig(Section):
    """How a step is distributed."""

    name: Literal["one_device", "mirrored"] = Field(
        default="one_device", description="one device, or a replica on each"
    )
    devices: PositiveInt | None = Field(
        default=None,
        description="replicas of mirrored; without it, one on every device; more than CPUs makes logical ones",
    )

    @model_validator(mode="after")
    def _one_device_is_one(self) -> "StrategyConfig":
        if self.name == "one_device" and self.devices not in (None, 1):
            raise ValueError(
                f"strategy.devices={self.devices} must be 1 with strategy.name=one_device: set strategy.name=mirrored"
            )
        return self

    @property
    def known_replicas(self) -> int | None:
        """Replicas, as far as the config says; None where it depends on the machine."""
        return 1 if self.name == "one_device" else self.devices
