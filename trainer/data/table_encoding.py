"""From the columns of a table to numbers: vocabularies, means and deviations, learned from the training rows alone.

Shape legend: N rows.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import tensorflow as tf

from trainer.data.checks import DataError
from trainer.data.hashing import hashed
from trainer.data.moments import Moments
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


class EncodingFit:
    """Learns an encoding from training rows that come piece by piece; how they are cut makes no difference.

    Args:
        roles: Which columns are what.
        fill_missing: A missing number becomes the mean of these rows.
        max_vocabulary: The most frequent categories of a column that are kept.
        hash_buckets: Columns of categories whose names are hashed, and into how many numbers.

    Raises:
        ValueError: `hash_buckets` names a column that is no category.
    """

    def __init__(
        self,
        roles: ColumnRoles,
        *,
        fill_missing: bool,
        max_vocabulary: int,
        hash_buckets: Mapping[str, int] | None = None,
    ) -> None:
        self._roles, self._fill_missing, self._max_vocabulary = roles, fill_missing, max_vocabulary
        self._hash_buckets = hash_buckets or {}
        for name in self._hash_buckets:
            if name not in roles.categorical:
                known = ", ".join(roles.categorical) or "none"
                raise ValueError(
                    f"data.hash_buckets names {name!r}, which is no category of the data: use those that are ({known})"
                )
        self._num_rows = 0
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in roles.categorical}
        numbers = (*roles.numeric, roles.target) if roles.target_kind == "number" else roles.numeric
        self._moments = {name: Moments() for name in numbers}
        self._classes: set[Any] = set()
        self._class_type: pa.DataType = pa.string()

    def add(self, table: pa.Table) -> None:
        """Adds training rows."""
        self._num_rows += table.num_rows
        for name, counts in self._counts.items():
            for entry in _plain(table[name]).cast(pa.string()).drop_null().value_counts().to_pylist():
                counts[entry["values"]] += entry["counts"]
        for name, moments in self._moments.items():
            values, missing = _as_numbers(table[name], {}, name)
            moments.add(values[~missing])

    def add_classes(self, table: pa.Table) -> None:
        """Adds rows that name classes, which may be more than the training rows; has no effect on a regression."""
        if self._roles.target_kind == "class":
            values = _plain(table[self._roles.target]).drop_null().unique()
            self._class_type = values.type
            self._classes.update(values.to_pylist())

    def finish(self) -> TableEncoding:
        """The encoding; nothing may be added afterwards."""
        roles, features = self._roles, dict[str, Feature]()
        for name in roles.categorical:
            # The most frequent first, equally frequent ones by name.
            names = tuple(sorted(self._counts[name], key=lambda value: (-self._counts[name][value], value)))
            if name in self._hash_buckets:
                features[name] = _hashed_feature(names, self._hash_buckets[name])
            else:
                vocabulary = names[: self._max_vocabulary]
                features[name] = Feature((), "int32", vocabulary, num_values=len(vocabulary) + 1)
        for name, moments in self._moments.items():
            mean, std = moments.mean_and_deviation()
            features[name] = Feature((), "float32", mean=mean, std=std)
        schema = Schema(features, roles.target, self._num_rows)
        if roles.target_kind == "class":
            features[roles.target] = Feature((), "int32")
            # As what they are: numbers by size, text by letters.
            names = tuple(pa.array(sorted(self._classes), self._class_type).cast(pa.string()).to_pylist())
            schema = replace(schema, num_classes=len(names), class_names=names)
        return TableEncoding(schema, roles, self._fill_missing)


def fit_encoding(
    table: pa.Table,
    roles: ColumnRoles,
    *,
    fill_missing: bool,
    max_vocabulary: int,
    class_table: pa.Table | None = None,
    hash_buckets: Mapping[str, int] | None = None,
) -> TableEncoding:
    """Learns the encoding from all training rows at once, see `EncodingFit`.

    Args:
        table: The training rows.
        class_table: Rows that name the classes, where that is more than the training rows.
        roles, fill_missing, max_vocabulary, hash_buckets: As `EncodingFit`.
    """
    fit = EncodingFit(roles, fill_missing=fill_missing, max_vocabulary=max_vocabulary, hash_buckets=hash_buckets)
    fit.add(table)
    fit.add_classes(table if class_table is None else class_table)
    return fit.finish()


def choose_roles(
    schema: pa.Schema,
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
        if name not in schema.names:
            rule = f"there is no column {name!r}, it has {', '.join(schema.names)}"
            raise DataError(file, "", rule, "correct data.target, data.categorical or data.numeric")
    rest = [name for name in schema.names if name not in {target, *(categorical or ()), *(numeric or ())}]
    texts = [name for name in rest if not _is_number(schema.field(name).type)]
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


def _hashed_feature(names: Sequence[str], buckets: int) -> Feature:
    bucket_names: dict[int, str] = {}
    for name, number in zip(names, _hashed(pa.chunked_array([names], pa.string()), buckets), strict=True):
        bucket_names.setdefault(int(number), name)
    return Feature((), "int32", num_values=buckets + 1, hash_buckets=buckets, bucket_names=bucket_names)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


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
