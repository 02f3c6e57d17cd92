"""Options of the data sources that read samples from files while training runs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator

from trainer.config.data import DataConfig, Fraction
from trainer.config.path_text import PathText
from trainer.config.store import StoreConfig

ImageSize = tuple[PositiveInt, PositiveInt]
Resize = Literal["crop", "stretch"]
Channels = Literal[1, 3]


class RecordFeature(BaseModel):
    """One feature of a tf.train.Example, as it is stored in the records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["image", "integer", "float", "raw"] = Field(
        description="image: an encoded JPEG, PNG, ...; integer, float: an int64_list, float_list; raw: bytes of `dtype`"
    )
    key: str | None = Field(default=None, description="its name in the records; without it, the name that it has here")
    shape: tuple[PositiveInt, ...] = Field(default=(), description="of one sample; images have that of data.image_size")
    channels: Channels = Field(default=3, description="of an image: 3 colours or 1 grey")
    dtype: Literal["uint8", "int32", "int64", "float32"] = Field(
        default="uint8", description="of raw bytes, little-endian"
    )
    offset: int = Field(default=0, description="added to an integer: -1 for classes that the records count from 1")
    num_values: PositiveInt | None = Field(default=None, description="an integer must lie in [0, num_values)")

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> "RecordFeature":
        allowed = {"image": {"channels"}, "raw": {"shape", "dtype", "num_values"}, "float": {"shape"}}
        allowed["integer"] = {"shape", "offset", "num_values"}
        # By value and not by what was written, because the config in a run folder writes every option.
        changed = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        foreign = changed - allowed[self.kind] - {"kind", "key"}
        if foreign:
            raise ValueError(f"{min(foreign)} says nothing about a feature of kind {self.kind!r}: leave it out")
        if self.kind == "raw" and not self.shape:
            raise ValueError("a feature of kind 'raw' needs its shape, such as [28, 28, 1]")
        return self


class TfrecordData(DataConfig):
    """TFRecord shards of tf.train.Example, read at random through an index that is built once."""

    name: Literal["tfrecord"] = "tfrecord"
    pattern: PathText = Field(description="the shards, such as /data/imagenet/train-* or gs://bucket/train-*")
    held_out_pattern: PathText | None = Field(
        default=None, description="other shards; without it, a fraction of the records"
    )
    held_out_fraction: Fraction = 0.1
    features: dict[str, RecordFeature] = Field(min_length=1, description="what to read from a record, by name")
    image_size: ImageSize = Field(default=(224, 224), description="height and width that images are brought to")
    resize: Resize = Field(
        default="crop", description="to image_size: the largest centred crop, or the whole image stretched"
    )
    target: str | None = Field(default="label", description="the feature to predict; none for language modelling")
    num_classes: PositiveInt | None = Field(default=None, description="of an integer target; a label must be below it")
    store: StoreConfig = Field(default=StoreConfig(), description="reading where the pattern is a URL")

    @model_validator(mode="after")
    def _each_key_is_read_once(self) -> "TfrecordData":
        names: dict[str, str] = {}
        for name, feature in self.features.items():
            key = feature.key or name
            if key in names:
                raise ValueError(f"data.features {names[key]!r} and {name!r} both read the key {key!r}: leave out one")
            names[key] = name
        return self

    @model_validator(mode="after")
    def _target_is_declared(self) -> "TfrecordData":
        if self.target is None:
            return self
        feature = self.features.get(self.target)
        if feature is None:
            raise ValueError(f"data.target={self.target!r} is not in data.features: declare it there")
        if feature.kind == "image":
            raise ValueError(f"data.target={self.target!r} is an image: name an integer or float feature")
        if feature.kind == "integer" and not feature.shape and self.num_classes is None:
            raise ValueError("data.num_classes is missing: say how many classes the records have")
        return self


class ArrayRecordData(TfrecordData):
    """Files of the package array_record with a tf.train.Example in each record."""

    name: Literal["array_record"] = "array_record"  # pyright: ignore[reportIncompatibleVariableOverride]


class ImagesData(DataConfig):
    """A folder of images with one folder a class; the sorted names of the folders are the classes."""

    name: Literal["images"] = "images"
    path: PathText
    held_out_path: PathText | None = Field(
        default=None, description="a second folder; without it, a fraction of the first"
    )
    held_out_fraction: Fraction = Field(
        default=0.1, description="chosen by file name, so that new files move no old one"
    )
    held_out_by: Literal["image", "class"] = Field(
        default="image",
        description="class: whole folders, of classes that training never sees, for task.name=verification",
    )
    image_size: ImageSize = Field(default=(224, 224), description="height and width that images are brought to")
    resize: Resize = Field(
        default="crop", description="to image_size: the largest centred crop, or the whole image stretched"
    )
    channels: Channels = Field(default=3, description="3 colours or 1 grey")


def _inside_the_folder(pattern: str) -> str:
    if pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
        raise ValueError("must be a pattern of names inside the folder data.path, such as *.txt: put the folder there")
    return pattern


class TextData(DataConfig):
    """A folder of text files, as windows of `context` + 1 tokens."""

    name: Literal["text"] = "text"
    path: PathText = Field(description="a folder, a file, or package:NAME/FOLDER for texts inside an installed package")
    files: Annotated[str, Field(min_length=1), AfterValidator(_inside_the_folder)] = Field(
        default="*.txt", description="pattern of the file names, at any depth of the folder"
    )
    encoding: str = Field(default="utf-8", description="of the files")
    held_out_path: PathText | None = Field(default=None, description="other texts; without it, the end of every file")
    held_out_fraction: Fraction = 0.1
    tokenizer: Literal["bytes", "subword"] = Field(
        default="bytes", description="256 bytes, or byte-level BPE trained once"
    )
    vocabulary: Annotated[int, Field(ge=257, le=2**20)] | None = Field(
        default=None, description="tokens of the subword tokenizer; 2048 when not given"
    )
    context: PositiveInt = Field(default=128, description="tokens that a prediction may look back on")
    documents: Literal["file", "paragraph"] = Field(
        default="file", description="what is one document: a file, or what stands between empty lines"
    )
    packing: bool = Field(
        default=False, description="several whole documents in each window, none of which sees another"
    )
    masked: Fraction | None = Field(
        default=None, description="share of the tokens that are hidden, to be predicted from both sides; 0.15 is usual"
    )
    classes: dict[str, tuple[str, ...]] = Field(
        default={}, description="for each class of texts, patterns of file names: windows are classified"
    )

    @model_validator(mode="after")
    def _windows_serve_one_purpose(self) -> "TextData":
        purposes = {"packing": self.packing, "masked": self.masked is not None, "classes": bool(self.classes)}
        asked = [f"data.{name}" for name, is_asked in purposes.items() if is_asked]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} do not go together, since each makes other windows: keep one")
        if len(self.classes) == 1:
            raise ValueError(f"data.classes has {next(iter(self.classes))!r} alone, and there must be two: add one")
        return self

    @model_validator(mode="after")
    def _bytes_have_a_fixed_vocabulary(self) -> "TextData":
        if self.tokenizer == "bytes" and self.vocabulary is not None:
            raise ValueError(
                f"data.vocabulary={self.vocabulary} does not go with bytes, of which there are 256: "
                "leave it out, or set data.tokenizer=subword"
            )
        return self


class TfdsData(DataConfig):
    """A data set of TensorFlow Datasets: "tfds:cifar10", "tfds:imagenet2012:5.1.0"."""

    name: Annotated[str, Field(pattern=r"^tfds:[A-Za-z_]\w*(/[\w.-]+)?(:\d+\.\d+\.\d+)?$")]
    data_dir: PathText | None = Field(
        default=None, description="where it is stored; without it, TensorFlow Datasets' own folder"
    )
    download: bool = Field(default=True, description="prepare the data set when data_dir does not hold it yet")
    split: str = Field(default="train", description='split to train on, such as "train" or "train[:80%]"')
    held_out_split: str | None = Field(default=None, description="without it: validation, else test, whichever exists")
    image_size: ImageSize | None = Field(
        default=None, description="brings images to this size; needed where sizes differ"
    )
    resize: Resize = Field(
        default="crop", description="to image_size: the largest centred crop, or the whole image stretched"
    )
    features: tuple[str, ...] | None = Field(
        default=None, description="those to read; without it, all that are numbers"
    )
    target: str | None = Field(default="label", description="the feature to predict; none for language modelling")

    @property
    def dataset(self) -> str:
        """The name without "tfds:"."""
        return self.name.removeprefix("tfds:")
