"""The sources `csv` and `parquet`: columns of categories and numbers, read through pyarrow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trainer.config.data import CsvData, ParquetData, TableData
from trainer.data.checks import DataError
from trainer.data.held_out import Split, choose_split, draw_records
from trainer.data.memory import MemorySource, Place
from trainer.data.source import SkippedRecords, Source
from trainer.data.stored_tables import is_stored, open_stored_table
from trainer.data.table_encoding import TableEncoding, choose_roles, fit_encoding
from trainer.data.table_files import TableFile, find_table_files, read_csv, read_parquet
from trainer.data.table_stream import check_columns, differing_types


@dataclass(frozen=True)
class TableFiles:
    """The rows of one or more files, and where each comes from.

    Attributes:
        table: All rows.
        files: The files, in order.
        starts: Index of each file's first row, and the number of all rows at the end.
        rows: Number of each row in its file, counted from 1 after the header.
    """

    table: pa.Table
    files: tuple[TableFile, ...]
    starts: np.ndarray
    rows: np.ndarray

    def place(self, index: int) -> tuple[str, str]:
        """Names the file and the row in it."""
        return str(self.files[np.searchsorted(self.starts, index, "right") - 1]), f"row {self.rows[index]}"


def open_table(data: CsvData | ParquetData, split: Split) -> Source:
    """Opens a split of CSV or Parquet files; those in a store, and large ones, through their encoded rows.

    Raises:
        DataError: There are no files, their columns differ or are not those that the config names, or more rows are
            bad than data.skip_bad_records allows.
        ValueError: data.hash_buckets names a column that is no category.
    """
    if is_stored(data):
        return open_stored_table(data, split)
    skipped = SkippedRecords(data.skip_bad_records)
    found = _read_files(data, data.path, "data.path", skipped)
    roles = choose_roles(
        found.table.schema,
        data.path,
        categorical=data.categorical,
        numeric=data.numeric,
        target=data.target,
        target_kind=data.target_kind,
    )
    rows = np.arange(found.table.num_rows)
    classes = found.table
    if data.held_out_path is None:
        drawn = np.concatenate(
            [draw_records(f.name, n) for f, n in zip(found.files, np.diff(found.starts), strict=True)]
        )
        rows = choose_split(data.path, drawn, data.held_out_fraction, "train")
    encoding = fit_encoding(
        found.table.take(rows),
        roles,
        fill_missing=data.missing == "mean",
        max_vocabulary=data.max_vocabulary,
        class_table=classes,
        hash_buckets=data.hash_buckets,
    )
    if split == "held_out":
        if data.held_out_path is None:
            rows = choose_split(data.path, drawn, data.held_out_fraction, split)
        else:
            skipped = SkippedRecords(data.skip_bad_records)
            found = _read_files(data, data.held_out_path, "data.held_out_path", skipped)
            check_columns(found.table.column_names, data.held_out_path, roles.columns)
            rows = np.arange(found.table.num_rows)
    return source_of_rows(encoding, found.table.take(rows), lambda index: found.place(int(rows[index])), skipped)


def source_of_rows(encoding: TableEncoding, table: pa.Table, place: Place, skipped: SkippedRecords) -> MemorySource:
    """Encodes rows and holds them in memory.

    Raises:
        DataError: More rows are bad than `skipped` allows.
    """
    arrays, broken = encoding.encode(table)
    return MemorySource(encoding.schema, arrays, place, skipped=skipped, broken=broken)


def _read_files(data: TableData, pattern: str, setting: str, skipped: SkippedRecords) -> TableFiles:
    files = find_table_files(pattern, setting, data.store)
    tables, rows = [], []
    for file in files:
        table, numbers = read_csv(file, skipped.add) if isinstance(data, CsvData) else read_parquet(file)
        if tables:
            check_columns(table.column_names, file, tables[0].column_names)
            table = table.select(tables[0].column_names)
        tables.append(table)
        rows.append(numbers)
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise differing_types(pattern, error) from error
    if not whole.num_rows:
        raise DataError(pattern, "", "it holds no rows", f"correct {setting}")
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    return TableFiles(whole, tuple(files), starts, np.concatenate(rows))
