"""The raw formats: what each of them can say about its files, and which one a path looks like."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from trainer.data.checks import DataError
from trainer.preparation.raw_files import SETTING
from trainer.preparation.request import Chunk, Contents, FormatName, Request

Survey = dict[str, object]
"""What is found out about a file before any of it is encoded. Plain data."""

_SUFFIXES: dict[str, FormatName] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "lines",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_MODULES = {"images": "raw_images", "csv": "raw_csv", "parquet": "raw_parquet", "lines": "raw_lines"}


class Record(NamedTuple):
    """A record that is ready to be written.

    Attributes:
        file: Name of its raw file.
        number: Its place there, the same in no two records of a file.
        payload: The serialised tf.train.Example.
    """

    file: str
    number: int
    payload: bytes


class RawFormat(Protocol):
    """What a module of a raw format has."""

    NEEDS_SURVEY: bool

    def chunks(self, request: Request) -> list[Chunk]:
        """Cuts the input.

        Raises:
            DataError: It is not there, or not of this format.
        """
        ...

    def survey(self, request: Request, chunk: Chunk) -> Survey:
        """Looks through a chunk; only where the format needs a survey."""
        ...

    def contents(self, request: Request, chunks: Sequence[Chunk], surveys: Sequence[Survey]) -> Contents:
        """What the records will hold.

        Raises:
            DataError: The files do not go together.
        """
        ...

    def read(self, request: Request, chunk: Chunk, contents: Contents) -> Iterator[Record | DataError]:
        """Gives each record, or the error that says why it has none."""
        ...


def format_of(name: FormatName) -> RawFormat:
    """The module of a format; what it needs is imported now."""
    module = f"trainer.preparation.{_MODULES.get(name, 'raw_records')}"
    try:
        return cast(RawFormat, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if (error.name or "trainer").split(".")[0] == "trainer":
            raise
        raise ValueError(f"--format {name} needs the package {error.name}: install phalanx[samples]") from error


def guess_format(source: str) -> FormatName:
    """What the input looks like: a folder holds images, a file is what it ends in.

    Raises:
        DataError: It looks like nothing that is known.
    """
    if Path(source).expanduser().is_dir():
        return "images"
    name = _SUFFIXES.get(Path(source).suffix.lower())
    if name is None:
        rule = f"{SETTING} is no folder and does not end in {', '.join(_SUFFIXES)}, so its format is not known"
        raise DataError(source, "", rule, "say it with --format, or correct the path")
    return name
