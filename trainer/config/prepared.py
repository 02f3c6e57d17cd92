"""Options of the source `prepared`: a folder that `phalanx data prepare` has made."""

from typing import Literal

from pydantic import Field, PositiveInt

from trainer.config.data import DataConfig, Fraction
from trainer.config.data_streams import ImageSize, Resize
from trainer.config.path_text import PathText
from trainer.config.store import StoreConfig


class PreparedData(DataConfig):
    """A folder of `phalanx data prepare`; what its records hold is in its manifest.json."""

    name: Literal["prepared"] = "prepared"
    path: PathText = Field(description="the folder, or its URL")
    held_out_path: PathText | None = Field(
        default=None, description="a second such folder; without it, a fraction of the records"
    )
    held_out_fraction: Fraction = 0.1
    features: tuple[str, ...] | None = Field(default=None, description="those to read; without it, all")
    image_size: ImageSize = Field(default=(224, 224), description="height and width that images are brought to")
    resize: Resize = Field(
        default="crop", description="to image_size: the largest centred crop, or the whole image stretched"
    )
    channels: Literal[1, 3] = Field(default=3, description="of images: 3 colours or 1 grey")
    target: str | None = Field(default=None, description="the feature to predict; without it, as it was prepared")
    num_classes: PositiveInt | None = Field(
        default=None, description="of an integer target of prepared tf.train.Example; else it is known"
    )
    store: StoreConfig = Field(default=StoreConfig(), description="reading where the path is a URL")
