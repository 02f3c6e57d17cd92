"""The rows of CSV and Parquet files, piece by piece: of Parquet a row group at a time, of CSV a file.

What type a CSV column has is known when all of the file has been read, so less of it cannot be given. Going through the
rows again gives the same pieces. Nothing in here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from trainer.data.checks import DataError
from trainer.data.table_files import TableFile, check_unique, opened, read_csv, unreadable_parquet
from trainer.object_store.remote_file import RemoteFile

Noted = Callable[[DataError], object]


class Piece(NamedTuple):
    """Consecutive rows.

    Attributes:
        start: Index of the first one among the rows of all files.
        table: The rows, with the types that all files together have.
    """

    start: int
    table: pa.Table


class TableStream:
    """The rows of files one after the other.

    Args:
        files: In order.
        is_csv: Else they are Parquet.
        pattern: That named them, for messages.
        note_damaged: Gets the error of each CSV row with too many or too few columns, and raises it if it may not be
            left out.

    Attributes:
        files: As given.
        counts: Rows of each file that are left.
        damaged: Numbers of the rows of each file that are left out, from 1 after the header.
        schema: Names and types of the columns of all files.

    Raises:
        DataError: A file cannot be read, or the files have other columns or types than each other.
    """

    def __init__(self, files: Sequence[TableFile], *, is_csv: bool, pattern: str, note_damaged: Noted) -> None:
        self.files, self._is_csv = tuple(files), is_csv
        self.counts: list[int] = []
        self.damaged: list[list[int]] = []
        schemas: list[pa.Schema] = []
        for file in files:
            schema, count, damaged = self._survey_csv(file, note_damaged) if is_csv else self._survey_parquet(file)
            names = schemas[0].names if schemas else schema.names
            check_columns(schema.names, file, names)
            schemas.append(pa.schema([schema.field(name) for name in names]))
            self.counts.append(count)
            self.damaged.append(damaged)
        try:
            self.schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise differing_types(pattern, error) from error

    @property
    def num_rows(self) -> int:
        """Of all files."""
        return sum(self.counts)

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """All rows, with some of their columns.

        Raises:
            DataError: A file can no longer be read.
        """
        fields = pa.schema([self.schema.field(name) for name in columns])
        start = 0
        for file in self.files:
            for table in self._read_csv(file) if self._is_csv else _row_groups(file, fields.names):
                try:
                    yield Piece(start, table.select(fields.names).cast(fields))
                except pa.ArrowException as error:
                    raise differing_types(str(file), error) from error
                start += table.num_rows

    def _survey_csv(self, file: TableFile, note_damaged: Noted) -> tuple[pa.Schema, int, list[int]]:
        if isinstance(file, RemoteFile):
            file.fetch_ahead(0, file.state[1])
        table, numbers = read_csv(file, note_damaged)
        damaged = np.setdiff1d(np.arange(1, int(numbers[-1]) + 1) if len(numbers) else [], numbers)
        return table.schema, table.num_rows, damaged.tolist()

    def _survey_parquet(self, file: TableFile) -> tuple[pa.Schema, int, list[int]]:
        with _parquet(file) as held:
            check_unique(held.schema_arrow.names, file)
            return held.schema_arrow.remove_metadata(), held.metadata.num_rows, []

    def _read_csv(self, file: TableFile) -> Iterator[pa.Table]:
        if isinstance(file, RemoteFile):
            file.fetch_ahead(0, file.state[1])
        yield read_csv(file, lambda damaged: None)[0]


def _row_groups(file: TableFile, columns: Sequence[str]) -> Iterator[pa.Table]:
    with _parquet(file) as held:
        _fetch_group(file, held, 0, columns)
        for number in range(held.num_row_groups):
            _fetch_group(file, held, number + 1, columns)
            try:
                table = held.read_row_group(number, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise unreadable_parquet(file, error) from error
            yield table


def _fetch_group(file: TableFile, held: pyarrow.parquet.ParquetFile, number: int, columns: Sequence[str]) -> None:
    """Has the columns of a row group brought into the cache while the one before it is encoded."""
    if isinstance(file, Path) or number >= held.num_row_groups:
        return
    group = held.metadata.row_group(number)
    for place in range(group.num_columns):
        column = group.column(place)
        if column.path_in_schema.partition(".")[0] in columns:
            start = column.dictionary_page_offset or column.data_page_offset
            file.fetch_ahead(start, start + column.total_compressed_size)


def _parquet(file: TableFile) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(opened(file))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_parquet(file, error) from error


def check_columns(names: Sequence[str], file: object, expected: Sequence[str]) -> None:
    """Checks that a file has all columns that it should.

    Raises:
        DataError: It lacks one.
    """
    missing = [name for name in expected if name not in names]
    if missing:
        raise DataError(file, "", f"it lacks the column {missing[0]!r}", "give all files the same columns")


def differing_types(pattern: str, error: Exception) -> DataError:
    """The error of files whose columns do not go together."""
    rule = f"a column has different types in different files ({error})"
    return DataError(pattern, "", rule, "write all files with the same types")
