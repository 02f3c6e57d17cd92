"""The `cluster` section: where the workers run."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ClusterConfig(BaseModel):
    """One process on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"] = Field(default="local", description="where workers run")
    workers: Literal[1] = Field(default=1, description="training processes")
