"""Options of segmentation: the data source `lesions` and the task `segmentation`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from trainer.config.data import DataConfig
from trainer.config.section import Section


class LesionsData(DataConfig):
    """Made-up scans: grey tissue with smooth and with spiky lesions planted in it, and a mask that says where."""

    held_out: ClassVar[str] = "test"
    name: Literal["lesions"] = "lesions"
    num_samples: PositiveInt = 1000
    held_out_samples: PositiveInt = 250
    size: Annotated[int, Field(ge=16)] = Field(default=64, description="pixels a side")
    data_seed: int = Field(default=0, ge=0)


class SegmentationTask(Section):
    """One class for each pixel."""

    name: Literal["segmentation"] = "segmentation"
    dice: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="weight of the soft Dice loss beside the cross-entropy of the pixels"
    )
