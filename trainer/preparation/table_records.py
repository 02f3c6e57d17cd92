"""Rows of tables to records: numbers as they are, categories as their number in a vocabulary of the whole input.

The survey of a file is merged with those of the others in the order of the files, whoever made it and when.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa

from trainer.config.data_streams import RecordFeature
from trainer.data.checks import DataError
from trainer.data.record_writer import encode_example
from trainer.preparation.formats import Record, Survey
from trainer.preparation.request import Contents, RawFile, Request

MOST_NAMES = 100_000
"""Different values that a column of categories may have."""
_CHANGE = "correct it, or leave such rows out with --skip-damaged"


def survey_of(table: pa.Table, request: Request, file: object) -> Survey:
    """What is in each column that is wanted: its kind, and its different values or its statistics.

    Raises:
        DataError: A column is missing, is of a type that is neither, or has too many values.
    """
    missing = [name for name in (*(request.columns or ()), request.target) if name and name not in table.column_names]
    if missing:
        raise DataError(file, "", f"it has no column {missing[0]!r}", "correct --columns or --target, or add it")
    names = request.columns or table.column_names
    names = [*names, request.target] if request.target and request.target not in names else names
    return {name: _column_survey(table[name], name, request, file) for name in names}


def contents_of(request: Request, files: Sequence[str], surveys: Sequence[Survey]) -> Contents:
    """What the columns become, over all files.

    Raises:
        DataError: A column is not in all files, or has text in one and numbers in another, or there is no target.
    """
    first = cast(dict[str, dict[str, Any]], surveys[0]) if surveys else {}
    if request.target is None:
        rule = "a table needs a target"
        raise DataError(request.source, "", rule, f"name the column to predict with --target: {', '.join(first)}")
    merged: dict[str, dict[str, Any]] = {name: {"kind": "empty"} for name in first}
    for file, survey in zip(files, surveys, strict=True):
        for name in merged.keys() ^ survey.keys():
            rule = f"the column {name!r} is not in all files"
            raise DataError(file, "", rule, "give all files the same columns, or choose some with --columns")
        for name, found in survey.items():
            merged[name] = _merge(merged[name], cast(dict[str, Any], found), name, file)
    features, vocabularies, statistics = {}, {}, {}
    for name, found in merged.items():
        if found["kind"] == "empty":
            rule = f"the column {name!r} is empty in all rows"
            raise DataError(request.source, "", rule, "leave it out: choose others with --columns")
        if found["kind"] == "number":
            features[name] = RecordFeature(kind="float")
            deviation = math.sqrt(found["squares"] / found["count"])
            statistics[name] = (found["mean"], deviation or 1.0)
            continue
        values = sorted(found["names"], key=lambda text: (int(text), text)) if found["whole"] else None
        vocabularies[name] = tuple(values or sorted(found["names"]))
        features[name] = RecordFeature(kind="integer", num_values=len(vocabularies[name]))
    classes = vocabularies.pop(request.target, None)
    return Contents(
        features=features,
        target=request.target,
        num_classes=len(classes) if classes else None,
        class_names=classes,
        vocabularies=vocabularies,
        statistics=statistics,
    )


def records_of(table: pa.Table, rows: np.ndarray, contents: Contents, file: RawFile) -> Iterator[Record | DataError]:
    """Encodes rows.

    Args:
        table: The rows.
        rows: Their numbers in the file, from 1, int64 [num_rows].
        contents: What the columns become.
        file: For messages and keys.
    """
    columns: dict[str, list[int | float | None]] = {}
    for name, feature in contents.features.items():
        column = _plain(table[name])
        if feature.kind == "float":
            columns[name] = column.cast(pa.float64()).to_pylist()
            continue
        vocabulary = contents.class_names if name == contents.target else contents.vocabularies[name]
        numbers = {text: number for number, text in enumerate(vocabulary or ())}
        columns[name] = [None if value is None else numbers[_text(value)] for value in column.to_pylist()]
    for position, row in enumerate(rows.tolist()):
        sample = {name: values[position] for name, values in columns.items()}
        bad = next((name for name, value in sample.items() if value is None or not math.isfinite(value)), None)
        if bad is not None:
            missing = sample[bad] is None
            rule = f"column {bad!r} is {'missing' if missing else sample[bad]}"
            yield DataError(file.path, f"row {row}", rule, _CHANGE)
            continue
        yield Record(file.name, row, encode_example(cast(dict[str, int | float], sample)))


def _column_survey(column: pa.ChunkedArray, name: str, request: Request, file: object) -> dict[str, Any]:
    column = _plain(column).drop_null()
    kind = column.type
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    is_class = name == request.target and request.target_kind == "class"
    if pa.types.is_null(kind) or not len(column):
        return {"kind": "empty"}
    if is_class and pa.types.is_floating(kind):
        rule = f"the target {name!r} holds fractions, which are no classes"
        raise DataError(file, "", rule, "set --target-kind number, or correct --target")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or (is_class and whole):
        names = sorted(_text(value) for value in column.unique().to_pylist())
        return {"kind": "category", "names": names, "whole": whole}
    if not (whole or pa.types.is_floating(kind)):
        rule = f"the column {name!r} is of type {kind}, which is neither a number nor text"
        raise DataError(file, "", rule, "choose other columns with --columns")
    values = column.cast(pa.float64()).to_numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        return {"kind": "empty"}
    mean = float(values.mean())
    return {"kind": "number", "count": len(values), "mean": mean, "squares": float(((values - mean) ** 2).sum())}


def _merge(one: dict[str, Any], other: dict[str, Any], name: str, file: object) -> dict[str, Any]:
    """Both files' column. Means and squared deviations as in Chan, Golub and LeVeque (1979)."""
    if "empty" in (one["kind"], other["kind"]):
        return other if one["kind"] == "empty" else one
    if one["kind"] != other["kind"]:
        rule = f"the column {name!r} is text in one file and a number in another"
        raise DataError(file, "", rule, "write it alike in all files, or choose other columns with --columns")
    if one["kind"] == "category":
        names = sorted({*one["names"], *other["names"]})
        if len(names) > MOST_NAMES:
            rule = f"the column {name!r} has more than {MOST_NAMES} different values"
            raise DataError(file, "", rule, "choose other columns with --columns")
        return {"kind": "category", "names": names, "whole": one["whole"] and other["whole"]}
    count = one["count"] + other["count"]
    apart = other["mean"] - one["mean"]
    return {
        "kind": "number",
        "count": count,
        "mean": one["mean"] + apart * other["count"] / count,
        "squares": one["squares"] + other["squares"] + apart**2 * one["count"] * other["count"] / count,
    }


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
