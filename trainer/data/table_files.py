"""CSV and Parquet files to tables of pyarrow, without TensorFlow."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from trainer.config.store import StoreConfig
from trainer.data.checks import DataError
from trainer.data.places import find_files
from trainer.object_store.objects import find_objects
from trainer.object_store.remote_file import RemoteFile
from trainer.object_store.stores import is_url

TableFile = Path | RemoteFile


def find_table_files(pattern: str, setting: str, store: StoreConfig) -> list[TableFile]:
    """The files of a pattern, sorted by name, on this machine or in an object store.

    Raises:
        DataError: There are none, or the store cannot be reached.
    """
    if not is_url(pattern):
        return list(find_files(pattern, setting))
    objects, reader = find_objects(pattern, setting, store)
    return [RemoteFile(one, reader) for one in objects]


def state_of(file: TableFile) -> tuple[str, int, str]:
    """What changes when the content does: the place, the bytes, and the store's version or the time of the last change.

    Of an object it is what the store said when it was found.

    Raises:
        DataError: It is no longer there.
    """
    if isinstance(file, RemoteFile):
        return file.state
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(file, "", f"it can no longer be read ({error.strerror})", "restore it") from error
    return str(file.absolute()), status.st_size, str(status.st_mtime_ns)


def opened(file: TableFile) -> Path | BinaryIO:
    """What pyarrow reads a file from."""
    return file if isinstance(file, Path) else file.open()


def read_csv(file: TableFile, note_damaged: Callable[[DataError], object]) -> tuple[pa.Table, np.ndarray]:
    """Reads a file with a header line.

    Args:
        file: The file.
        note_damaged: Gets the error of each row that has too many or too few columns, and raises it if it may not be
            left out.

    Returns:
        The rows that are left, and their numbers in the file, from 1 after the header, int64 [num_rows].

    Raises:
        DataError: The file is no CSV, or two columns have one name.
    """
    errors: list[DataError] = []
    damaged: list[int] = []

    def note(row: pyarrow.csv.InvalidRow) -> str:
        # Counted from 1 with the header.
        damaged.append(row.number - 1)
        rule = f"it has {row.actual_columns} columns, the header has {row.expected_columns}"
        errors.append(DataError(file, f"row {row.number - 1}", rule))
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            opened(file),
            # Rows have numbers only when one thread reads them.
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=note),
            convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True),
        )
    except pa.ArrowException as error:
        raise DataError(
            file, "", f"it cannot be read as CSV ({error})", "write a header line and one line a row"
        ) from error
    for error in errors:
        note_damaged(error)
    check_unique(table.column_names, file)
    return table, np.delete(np.arange(1, table.num_rows + len(damaged) + 1), [number - 1 for number in damaged])


def read_parquet(file: TableFile) -> tuple[pa.Table, np.ndarray]:
    """Reads a file: its rows, and their numbers in it, from 1, int64 [num_rows].

    Raises:
        DataError: The file is no Parquet, or two columns have one name.
    """
    try:
        table = pyarrow.parquet.read_table(opened(file))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_parquet(file, error) from error
    check_unique(table.column_names, file)
    return table, np.arange(1, table.num_rows + 1)


def unreadable_parquet(file: TableFile, error: Exception) -> DataError:
    """The error of a file that is no Parquet, or damaged."""
    return DataError(file, "", f"it cannot be read as Parquet ({error})", "write it again")


def check_unique(names: Sequence[str], file: TableFile) -> None:
    """Checks that no two columns have one name.

    Raises:
        DataError: Two have.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(file, "", f"it has several columns named {twice[0]!r}", "give each one a name of its own")
