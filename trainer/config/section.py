"""What every section of a training config has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the config: frozen, closed to keys that it does not declare, with finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
