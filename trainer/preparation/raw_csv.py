"""CSV files with a header line, each read as a whole by one task; what a row becomes: `table_records`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.data.checks import DataError
from trainer.data.table_files import read_csv
from trainer.preparation.formats import Record, Survey
from trainer.preparation.raw_files import listed, unchanged
from trainer.preparation.request import Chunk, Contents, Request
from trainer.preparation.table_records import contents_of, records_of, survey_of

NEEDS_SURVEY = True


def chunks(request: Request) -> list[Chunk]:
    """A chunk a file: a line end may be part of a value. See `RawFormat`."""
    return [Chunk(files=(file,)) for file in listed(request.source)]


def survey(request: Request, chunk: Chunk) -> Survey:
    """The types, values and statistics of the columns."""
    with unchanged(chunk.files[0]) as path:
        table, _ = read_csv(path, lambda error: None)
    return survey_of(table, request, path)


def contents(request: Request, chunks: Sequence[Chunk], surveys: Sequence[Survey]) -> Contents:
    """What the columns become."""
    return contents_of(request, [chunk.files[0].path for chunk in chunks], surveys)


def read(request: Request, chunk: Chunk, contents: Contents) -> Iterator[Record | DataError]:
    """Reads the rows."""
    (file,) = chunk.files
    damaged: list[DataError] = []
    with unchanged(file) as path:
        table, rows = read_csv(Path(path), damaged.append)
    yield from damaged
    yield from records_of(table, rows, contents, file)
