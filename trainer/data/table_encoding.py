"""From the columns of a table to numbers: vocabularies, means and deviations, learned from the training rows alone.

Shape legend: N rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import tensorflow as tf

from trainer.data.array_schema import mean_and_deviation
from trainer.data.checks import DataError
from trainer.data.hashing import hashed
from trainer.data.source import Feature, Schema


@dataclass(frozen=True)
class ColumnRoles:
    """Which columns are what.

    Attributes:
        categorical: Columns of categories: text, or numbers that only name something.
        numeric: Columns of numbers.
        target: The column to predict.
        target_kind: "class", or "number" for a regression.
    """

    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    target: str
    target_kind: Literal["class", "number"] = "class"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, the target last."""
        return (*self.categorical, *self.numeric, self.target)


@dataclass(frozen=True)
class TableEncoding:
    """How the rows of a table become arrays.

    Attributes:
        schema: Features in the order of `roles.columns`; categories count from 1, and 0 is missing or unknown.
        roles: Which columns are what.
        fill_missing: A missing number becomes the mean of the training rows; otherwise it breaks a rule.
    """

    schema: Schema
    roles: ColumnRoles
    fill_missing: bool

    def encode(self, table: pa.Table) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Encodes rows.

        Returns:
            Values by feature, each [N], and the rule that each bad row breaks, by row.
        """
        arrays: dict[str, np.ndarray] = {}
        broken: dict[int, str] = {}
        for name in self.roles.categorical:
            feature = self.schema.features[name]
            if feature.hash_buckets is not None:
                arrays[name] = _hashed(table[name], feature.hash_buckets)
            else:
                arrays[name] = positions_of(table[name], feature.vocabulary or ()) + 1
        for name in self.roles.numeric:
            mean = self.schema.features[name].mean if self.fill_missing else None
            arrays[name] = self._numbers(table[name], name, broken, mean)
        target = self.roles.target
        if self.roles.target_kind == "number":
            arrays[target] = self._numbers(table[target], target, broken, None)
        else:
            arrays[target] = self._classes(table[target], broken)
        return arrays, broken

    def _numbers(self, column: pa.ChunkedArray, name: str, broken: dict[int, str], mean: float | None) -> np.ndarray:
        values, missing = _as_numbers(column, broken, name)
        for row in np.flatnonzero(missing).tolist() if mean is None else ():
            kind = "label" if name == self.roles.target else "feature"
            broken.setdefault(row, f"{kind} {name!r} is missing")
        values[missing] = 0.0 if mean is None else mean
        return values.astype(np.float32)

    def _classes(self, column: pa.ChunkedArray, broken: dict[int, str]) -> np.ndarray:
        labels = positions_of(column, self.schema.class_names or ())
        texts = _plain(column).cast(pa.string())
        for row in np.flatnonzero(labels < 0).tolist():
            text = texts[row].as_py()
            names = ", ".join(itertools.islice(self.schema.class_names or (), 5))
            rule = "is missing" if text is None else f"is {text!r}, which is no class of the training rows ({names})"
            broken.setdefault(row, f"label {self.roles.target!r} {rule}")
        return np.maximum(labels, 0)


def fit_encoding(
    table: pa.Table,
    roles: ColumnRoles,
    *,
    fill_missing: bool,
    max_vocabulary: int,
    class_table: pa.Table | None = None,
    hash_buckets: Mapping[str, int] | None = None,
) -> TableEncoding:
    """Learns the encoding from the training rows.

    Args:
        table: The training rows.
        roles: Which columns are what.
        fill_missing: A missing number becomes the mean of these rows.
        max_vocabulary: The most frequent categories of a column that are kept.
        class_table: Rows that name the classes, where that is more than the training rows.
        hash_buckets: Columns of categories whose names are hashed, and into how many numbers.

    Raises:
        ValueError: `hash_buckets` names a column that is no category.
    """
    hash_buckets = hash_buckets or {}
    for name in hash_buckets:
        if name not in roles.categorical:
            known = ", ".join(roles.categorical) or "none"
            raise ValueError(
                f"data.hash_buckets names {name!r}, which is no category of the data: use those that are ({known})"
            )
    features: dict[str, Feature] = {}
    for name in roles.categorical:
        if name in hash_buckets:
            features[name] = _hashed_feature(table[name], hash_buckets[name])
            continue
        vocabulary = _vocabulary(table[name], max_vocabulary)
        features[name] = Feature((), "int32", vocabulary, num_values=len(vocabulary) + 1)
    for name in roles.numeric:
        features[name] = _number_feature(table[name], name)
    schema = Schema(features, roles.target, table.num_rows)
    if roles.target_kind == "number":
        features[roles.target] = _number_feature(table[roles.target], roles.target)
    else:
        features[roles.target] = Feature((), "int32")
        names = _class_names((table if class_table is None else class_table)[roles.target])
        schema = replace(schema, num_classes=len(names), class_names=names)
    return TableEncoding(schema, roles, fill_missing)


def _number_feature(column: pa.ChunkedArray, name: str) -> Feature:
    values, missing = _as_numbers(column, {}, name)
    mean, std = mean_and_deviation(values[~missing])
    return Feature((), "float32", mean=mean, std=std)


def choose_roles(
    table: pa.Table,
    file: object,
    *,
    categorical: Sequence[str] | None,
    numeric: Sequence[str] | None,
    target: str,
    target_kind: Literal["class", "number"],
) -> ColumnRoles:
    """Settles the role of each column: what is not said follows from its type.

    Raises:
        DataError: A named column does not exist, or no column is left to learn from.
    """
    for name in (*(categorical or ()), *(numeric or ()), target):
        if name not in table.column_names:
            rule = f"there is no column {name!r}, it has {', '.join(table.column_names)}"
            raise DataError(file, "", rule, "correct data.target, data.categorical or data.numeric")
    rest = [name for name in table.column_names if name not in {target, *(categorical or ()), *(numeric or ())}]
    texts = [name for name in rest if not _is_number(table.schema.field(name).type)]
    numbers = [name for name in rest if name not in texts]
    if categorical is None:
        categorical = texts
    if numeric is None:
        numeric = numbers
    if not categorical and not numeric:
        raise DataError(file, "", f"there is no column but the target {target!r}", "add columns to learn from")
    return ColumnRoles(tuple(categorical), tuple(numeric), target, target_kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def positions_of(column: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
    """Finds each value among `names`: its position, int32 [N], or -1 for others and for missing ones."""
    encoded = _plain(column).cast(pa.string()).combine_chunks().dictionary_encode()
    position = {name: i for i, name in enumerate(names)}
    values = encoded.dictionary.to_pylist()
    found = np.array([*(position.get(value, -1) for value in values), -1], np.int32)
    return found[encoded.indices.fill_null(len(values)).to_numpy()]


def _hashed(column: pa.ChunkedArray, buckets: int) -> np.ndarray:
    """The number of each value by its hash, int32 [N]; 0 for missing ones."""
    encoded = _plain(column).cast(pa.string()).combine_chunks().dictionary_encode()
    values = ["" if value is None else value for value in encoded.dictionary.to_pylist()]
    with tf.device("CPU:0"):
        numbers = hashed(tf.constant([*values, ""], tf.string), buckets).numpy().astype(np.int32)
    return numbers[encoded.indices.fill_null(len(values)).to_numpy()]


def _hashed_feature(column: pa.ChunkedArray, buckets: int) -> Feature:
    names: dict[int, str] = {}
    vocabulary = _vocabulary(column, len(column))
    for name, number in zip(vocabulary, _hashed(pa.chunked_array([vocabulary], pa.string()), buckets), strict=True):
        names.setdefault(int(number), name)
    return Feature((), "int32", num_values=buckets + 1, hash_buckets=buckets, bucket_names=names)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _vocabulary(column: pa.ChunkedArray, largest: int) -> tuple[str, ...]:
    """The most frequent categories first, equally frequent ones by name."""
    counts = _plain(column).cast(pa.string()).drop_null().value_counts().to_pylist()
    counts.sort(key=lambda entry: (-entry["counts"], entry["values"]))
    return tuple(entry["values"] for entry in counts[:largest])


def _class_names(column: pa.ChunkedArray) -> tuple[str, ...]:
    """All classes, sorted as what they are: numbers by size, text by letters."""
    values = _plain(column).drop_null().unique()
    return tuple(pa.array(sorted(values.to_pylist()), values.type).cast(pa.string()).to_pylist())


def _as_numbers(column: pa.ChunkedArray, broken: dict[int, str], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads numbers, float64 [N], and says which are missing, bool [N]. Text that is no number goes into `broken`."""
    missing = column.is_null().to_numpy().copy()
    if _is_number(column.type) or pa.types.is_boolean(column.type):
        return column.cast(pa.float64()).fill_null(0.0).to_numpy().copy(), missing
    values = np.zeros(len(column))
    for row, text in enumerate(_plain(column).cast(pa.string()).to_pylist()):
        try:
            values[row] = 0.0 if text is None else float(text)
        except ValueError:
            broken.setdefault(row, f"feature {name!r} is {text!r}, which is not a number")
    return values, missing
