"""What is to be prepared: the raw data, what becomes of them, and how they are cut into tasks."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from trainer.config.data_streams import RecordFeature

FormatName = Literal["images", "csv", "parquet", "lines", "tfrecord"]
CHUNK_BYTES = 32 << 20
"""Raw bytes of a task, where a file can be read in parts. Nothing in the output depends on it."""
SHARD_BYTES = 128 << 20
"""Raw bytes for which there is a shard, unless their number is given."""


class _Plain(BaseModel):
    """Written down as JSON, handed to other processes, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(_Plain):
    """What decides the output, byte for byte, together with the raw files."""

    source: Annotated[str, Field(min_length=1, description="a folder of images, or a pattern of files")]
    format: FormatName
    num_shards: PositiveInt
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    target: str | None = None
    target_kind: Literal["class", "number"] = "class"
    columns: tuple[str, ...] | None = Field(default=None, description="of a table; without them, all")
    context: PositiveInt = Field(default=128, description="of lines of text: tokens that a prediction may look back on")
    chunk_bytes: PositiveInt = CHUNK_BYTES


class RawFile(_Plain):
    """One file of the input, in the state in which it was found.

    Attributes:
        path: Where it is.
        name: The same wherever the input lies.
        size: Bytes.
        modified_ns: Time of the last change, nanoseconds since 1970.
    """

    path: str
    name: str
    size: int
    modified_ns: int


class Chunk(_Plain):
    """What one task reads.

    Attributes:
        files: Read whole; or one, of which a part is read.
        start, stop: The part: bytes of text, row groups of Parquet. Both 0: all of it.
        first_row: Of the part of a Parquet file, counted from 0.
    """

    files: tuple[RawFile, ...]
    start: int = 0
    stop: int = 0
    first_row: int = 0

    @property
    def name(self) -> str:
        """For messages: the file, the part of it, or the first of several."""
        first = self.files[0].path
        if len(self.files) > 1:
            return f"{first} and {len(self.files) - 1} more"
        return f"{first} [{self.start}:{self.stop}]" if self.stop else first


class Contents(_Plain):
    """What is in each record.

    Attributes:
        features: As `data.features` of the source `tfrecord` takes them.
        target: The feature to predict; None for language modelling.
        num_classes: Of the target, or different tokens.
        class_names: Of the target.
        vocabularies: Of each column of categories, the names in the order of their numbers in the records, from 0.
        statistics: Mean and deviation of each column of numbers.
    """

    features: dict[str, RecordFeature]
    target: str | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    vocabularies: dict[str, tuple[str, ...]] = {}
    statistics: dict[str, tuple[float, float]] = {}


class DamagedRecord(_Plain):
    """What was left out, and why."""

    file: str
    record: str
    rule: str


class ShardFacts(_Plain):
    """One shard as it was written."""

    name: str
    records: int
    bytes: int
    sha256: str
