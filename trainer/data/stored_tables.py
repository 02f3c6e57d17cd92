"""Tables that are encoded once, into a file of this machine, and read there by position: docs/design/object_stores.md.

Shape legend: B batch, N rows, W columns.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config.data import CsvData, ParquetData
from trainer.data.arrays import LARGEST_LOADED
from trainer.data.cache_folder import cache_path
from trainer.data.checks import DataError, bad_rows
from trainer.data.held_out import Split, choose_split, draw_records
from trainer.data.memory import MemorySource, Place
from trainer.data.row_file import FOLDER, Plan, RowFile, open_row_file
from trainer.data.source import Feature, Schema, SkippedRecords, Source
from trainer.data.table_encoding import ColumnRoles, EncodingFit, TableEncoding, choose_roles
from trainer.data.table_files import TableFile, find_table_files, state_of
from trainer.data.table_stream import TableStream, check_columns
from trainer.object_store.remote_file import RemoteFile
from trainer.object_store.stores import is_url

FORMAT = 1
"""To be raised whenever what is written changes: files of another format are not found again."""
MOST_BROKEN = 1_000_000
"""Bad rows that are listed in the file, whether they may be left out or not."""


class MappedTable:
    """Rows that are read from a mapped file.

    Args:
        schema: Names and types, of scalars of 32 bits; `num_samples` is the length of `index`.
        file: The rows, a column a feature.
        index: The row of each sample.
        place: Where each row comes from, for messages.
        skipped: What was left out.
        ahead: Batches between being told what is read and reading it; 0: it is not told.
    """

    in_memory = False
    may_skip = False
    failure: DataError | None = None

    def __init__(
        self, schema: Schema, file: RowFile, index: np.ndarray, place: Place, skipped: SkippedRecords, ahead: int
    ) -> None:
        self.schema, self.skipped, self.ahead = replace(schema, num_samples=len(index)), skipped, ahead
        self._file, self._index, self._place = file, index, place

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers the samples at `index`, int64 [B], inside or outside a graph: every feature as [B]."""
        words_BW = tf.numpy_function(self._gather, [tf.cast(index, tf.int64)], tf.int32, stateful=False)
        words_BW.set_shape([index.shape[0], len(self.schema.features)])
        columns = zip(self.schema.features.items(), tf.unstack(words_BW, axis=1), strict=True)
        return {name: tf.bitcast(values, feature.dtype) for (name, feature), values in columns}

    def announce(self, index: np.ndarray) -> np.int64:
        """Has the kernel read the pages of the samples at `index`, int64 [B]; returns at once how many they are."""
        if self._file.held is not None:
            row_bytes = self._file.rows.strides[0]
            first = self._index[index] * row_bytes
            pages = np.unique(np.concatenate([first, first + row_bytes - 1]) // mmap.PAGESIZE)
            for run in np.split(pages, np.flatnonzero(np.diff(pages) > 1) + 1):
                start, stop = int(run[0]) * mmap.PAGESIZE, (int(run[-1]) + 1) * mmap.PAGESIZE
                self._file.held.madvise(mmap.MADV_WILLNEED, start, min(stop, len(self._file.held)) - start)
        return np.int64(len(index))

    def locate(self, index: int) -> str:
        """Names the place of a sample for a message."""
        return ", ".join(self._place(int(self._index[index])))

    def _gather(self, index: np.ndarray) -> np.ndarray:
        return self._file.rows[self._index[index]]


@dataclass(frozen=True)
class StoredTable:
    """All rows of some files, encoded.

    Attributes:
        file: The rows.
        encoding: How they became numbers.
        files: Names of the files that they come from, in order.
        counts: Rows of each file.
        damaged: Numbers of the rows of each file that are no rows, from 1.
        left_out: Why those are left out: file, record and rule.
        broken: The rule that each bad row breaks.
    """

    file: RowFile
    encoding: TableEncoding
    files: tuple[str, ...]
    counts: tuple[int, ...]
    damaged: tuple[tuple[int, ...], ...]
    left_out: tuple[tuple[str, str, str], ...]
    broken: Mapping[int, str]

    def place(self, row: int) -> tuple[str, str]:
        """Names the file of a row and its number there."""
        ends = np.cumsum(self.counts)
        which = int(np.searchsorted(ends, row, "right"))
        number = row - int(ends[which]) + self.counts[which] + 1
        for damaged in self.damaged[which]:
            number += damaged <= number
        return self.files[which], f"row {number}"

    def source(self, rows: np.ndarray, most_skipped: int, ahead: int) -> Source:
        """The source of some rows: in memory, or mapped where they are many.

        Raises:
            DataError: More rows are bad than `most_skipped`, or all of them.
        """
        skipped = SkippedRecords(most_skipped)
        for left_out in self.left_out:
            skipped.add(DataError(*left_out))
        broken = {at: self.broken[row] for at, row in _places(rows, self.broken)}
        schema = self.encoding.schema
        if self.file.rows.nbytes <= LARGEST_LOADED:
            columns = np.ascontiguousarray(self.file.rows[rows].T)
            arrays = {name: v.view(f.dtype) for (name, f), v in zip(schema.features.items(), columns, strict=True)}
            if not self.file.is_sound():
                rule = "its encoded rows on this machine are not those that were written"
                raise DataError(self.files[0], "", rule, f"remove {cache_path(FOLDER)}")
            return MemorySource(schema, arrays, lambda at: self.place(int(rows[at])), skipped=skipped, broken=broken)
        for at, rule in broken.items():
            skipped.add(DataError(*self.place(int(rows[at])), rule))
        index = np.delete(rows, list(broken))
        if not len(index):
            raise DataError(self.files[0], "", "every sample in it is bad", "correct the data")
        return MappedTable(schema, self.file, index, self.place, skipped, ahead)


def _places(rows: np.ndarray, broken: Mapping[int, str]) -> Iterator[tuple[int, int]]:
    """Where bad rows lie among some rows, which ascend: their place there, and the row."""
    for row in sorted(broken):
        at = int(np.searchsorted(rows, row))
        if at < len(rows) and rows[at] == row:
            yield at, row


def is_stored(data: CsvData | ParquetData) -> bool:
    """Whether a table is encoded into a file: it lies in a store, or is large."""
    if is_url(data.path) or is_url(data.held_out_path or ""):
        return True
    files = find_table_files(data.path, "data.path", data.store)
    return sum(state_of(file)[1] for file in files) > LARGEST_LOADED


def open_stored_table(data: CsvData | ParquetData, split: Split) -> Source:
    """Opens a split of CSV or Parquet files through their encoded rows, which are made where they are not there.

    Raises:
        DataError: As `trainer.data.tables.open_table`; or the rows take more than data.store.cache, or a file changes
            while it is read.
        ValueError: data.hash_buckets names a column that is no category.
    """
    files = find_table_files(data.path, "data.path", data.store)
    key = _key(data, files)
    table = _stored(data, files, key, None)
    if split == "held_out" and data.held_out_path is not None:
        other = find_table_files(data.held_out_path, "data.held_out_path", data.store)
        table = _stored(data, other, _key(data, other, key), table.encoding)
        rows = np.arange(sum(table.counts))
    else:
        rows = _chosen(data, files, table.counts, split)
    return table.source(rows, data.skip_bad_records, data.store.ahead)


def _chosen(data: CsvData | ParquetData, files: Sequence[TableFile], counts: Sequence[int], split: Split) -> np.ndarray:
    """The rows of a split of the training files."""
    if data.held_out_path is not None:
        return np.arange(sum(counts))
    drawn = [draw_records(file.name, count) for file, count in zip(files, counts, strict=True)]
    return choose_split(data.path, np.concatenate(drawn), data.held_out_fraction, split)


def _key(data: CsvData | ParquetData, files: Sequence[TableFile], encoded_like: str = "") -> str:
    """A name for all that encoded rows depend on."""
    options = data.model_dump(
        mode="json", exclude={"batch_size", "shuffle", "remainder", "augment", "service", "store"}
    )
    named = json.dumps([FORMAT, options, [state_of(file) for file in files], encoded_like], sort_keys=True)
    return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()


def _stored(
    data: CsvData | ParquetData, files: Sequence[TableFile], key: str, encoding: TableEncoding | None
) -> StoredTable:
    """Maps encoded rows, or makes them; without an encoding, learns it from the training rows."""
    pattern = data.path if encoding is None else data.held_out_path or ""
    limit = data.store.cache

    def plan() -> Plan:
        states = [state_of(file) for file in files]
        skipped, left_out = SkippedRecords(data.skip_bad_records), list[DataError]()

        def note(error: DataError) -> None:
            skipped.add(error)
            left_out.append(error)

        stream = TableStream(files, is_csv=isinstance(data, CsvData), pattern=pattern, note_damaged=note)
        if not stream.num_rows:
            raise DataError(pattern, "", "it holds no rows", "correct data.path or data.held_out_path")
        known = _fit(data, stream) if encoding is None else encoding
        check_columns(stream.schema.names, pattern, known.roles.columns)
        broken: dict[int, str] = {}

        def rows() -> Iterator[np.ndarray]:
            for start, table in stream.pieces(known.roles.columns):
                arrays, bad = known.encode(table)
                bad = bad_rows(known.schema, arrays) | bad
                broken.update((start + row, rule) for row, rule in bad.items())
                if len(broken) > MOST_BROKEN:
                    rule = f"more than {MOST_BROKEN} rows are bad; one {next(iter(bad.values()))}"
                    raise DataError(pattern, "", rule, "correct them, or the roles of the columns")
                yield np.stack([arrays[name].view(np.int32) for name in known.schema.features], axis=1)

        def describe() -> dict[str, Any]:
            for file, state in zip(files, states, strict=True):
                if isinstance(file, RemoteFile):
                    file.check_unchanged()
                elif state_of(file) != state:
                    raise DataError(file, "", "it changed while it was read", "start again on the new data")
            return {
                "encoding": _to_json(known),
                "files": [str(file) for file in files],
                "counts": stream.counts,
                "damaged": stream.damaged,
                "left_out": [(error.file, error.record, error.rule) for error in left_out],
                "broken": list(broken.items()),
            }

        return Plan(stream.num_rows, len(known.schema.features), rows(), describe)

    file = open_row_file(key, limit, pattern, plan)
    held = file.described
    return StoredTable(
        file,
        _from_json(held["encoding"]),
        tuple(held["files"]),
        tuple(held["counts"]),
        tuple(map(tuple, held["damaged"])),
        tuple((name, record, rule) for name, record, rule in held["left_out"]),
        dict(held["broken"]),
    )


def _fit(data: CsvData | ParquetData, stream: TableStream) -> TableEncoding:
    roles = choose_roles(
        stream.schema,
        data.path,
        categorical=data.categorical,
        numeric=data.numeric,
        target=data.target,
        target_kind=data.target_kind,
    )
    fit = EncodingFit(
        roles,
        fill_missing=data.missing == "mean",
        max_vocabulary=data.max_vocabulary,
        hash_buckets=data.hash_buckets,
    )
    chosen = np.zeros(stream.num_rows, bool)
    chosen[_chosen(data, stream.files, stream.counts, "train")] = True
    for start, table in stream.pieces(roles.columns):
        fit.add(table.filter(chosen[start : start + table.num_rows]))
        fit.add_classes(table)
    return fit.finish()


def _to_json(encoding: TableEncoding) -> dict[str, Any]:
    schema = encoding.schema
    return {
        "features": {name: asdict(feature) for name, feature in schema.features.items()},
        "schema": [schema.target, schema.num_samples, schema.num_classes, schema.class_names],
        "roles": asdict(encoding.roles),
        "fill_missing": encoding.fill_missing,
    }


def _from_json(held: dict[str, Any]) -> TableEncoding:
    features = {}
    for name, feature in held["features"].items():
        vocabulary, names = feature["vocabulary"], feature["bucket_names"]
        features[name] = Feature(
            **feature
            | {
                "shape": tuple(feature["shape"]),
                "vocabulary": None if vocabulary is None else tuple(vocabulary),
                "bucket_names": None if names is None else {int(number): name for number, name in names.items()},
            }
        )
    target, num_samples, num_classes, class_names = held["schema"]
    schema = Schema(features, target, num_samples, num_classes, None if class_names is None else tuple(class_names))
    roles = held["roles"]
    return TableEncoding(
        schema,
        ColumnRoles(tuple(roles["categorical"]), tuple(roles["numeric"]), roles["target"], roles["target_kind"]),
        held["fill_missing"],
    )
