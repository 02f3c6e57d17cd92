"""Parquet files, by row groups; what a row becomes: `table_records`."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.checks import DataError
from trainer.preparation.formats import Record, Survey
from trainer.preparation.raw_files import listed, unchanged
from trainer.preparation.request import Chunk, Contents, RawFile, Request
from trainer.preparation.table_records import contents_of, records_of, survey_of

NEEDS_SURVEY = True


def chunks(request: Request) -> list[Chunk]:
    """Neighbouring row groups. See `RawFormat`."""
    return [chunk for file in listed(request.source) for chunk in _chunks_of(file, request.chunk_bytes)]


def survey(request: Request, chunk: Chunk) -> Survey:
    """The types, values and statistics of the columns."""
    return survey_of(_read(chunk), request, chunk.files[0].path)


def contents(request: Request, chunks: Sequence[Chunk], surveys: Sequence[Survey]) -> Contents:
    """What the columns become."""
    return contents_of(request, [chunk.files[0].path for chunk in chunks], surveys)


def read(request: Request, chunk: Chunk, contents: Contents) -> Iterator[Record | DataError]:
    """Reads the rows."""
    table = _read(chunk)
    rows = np.arange(chunk.first_row, chunk.first_row + table.num_rows) + 1
    yield from records_of(table, rows, contents, chunk.files[0])


def _chunks_of(file: RawFile, chunk_bytes: int) -> Iterator[Chunk]:
    with unchanged(file) as path:
        try:
            facts = pq.read_metadata(path)
        except pa.ArrowException as error:
            raise _unreadable(file, error) from error
    begin = row = next_row = size = 0
    for group in range(facts.num_row_groups):
        group_facts = facts.row_group(group)
        if group > begin and size + group_facts.total_byte_size > chunk_bytes:
            yield Chunk(files=(file,), start=begin, stop=group, first_row=row)
            begin, row, size = group, next_row, 0
        size += group_facts.total_byte_size
        next_row += group_facts.num_rows
    if begin < facts.num_row_groups:
        yield Chunk(files=(file,), start=begin, stop=facts.num_row_groups, first_row=row)


def _read(chunk: Chunk) -> pa.Table:
    (file,) = chunk.files
    with unchanged(file) as path:
        try:
            with pq.ParquetFile(path) as opened:
                return opened.read_row_groups(range(chunk.start, chunk.stop))
        except pa.ArrowException as error:
            raise _unreadable(file, error) from error


def _unreadable(file: RawFile, error: Exception) -> DataError:
    return DataError(file.path, "", f"it cannot be read as Parquet ({error})", "write it again")
