"""The `cluster` section: where the workers run, and what is ready for the death of one."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt


class ClusterConfig(BaseModel):
    """One process on this machine, or several that a supervisor watches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"] = Field(default="local", description="where workers run: on this machine")
    workers: PositiveInt = Field(default=1, description="training processes")
    standbys: NonNegativeInt | None = Field(
        default=None,
        description="started processes that wait to take a dead worker's place; without it one for each worker, "
        "because a death ends them all",
    )
    snapshot_every: PositiveInt | None = Field(
        default=20,
        description="steps between two copies of the state in the hosts' memory; null: only checkpoints; with one "
        "worker, none",
    )
    max_failures: NonNegativeInt = Field(
        default=10, description="most failures without sustained progress in between before the run is given up"
    )
