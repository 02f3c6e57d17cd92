"""The rules that every sample must keep, and the error that names the file, the record, the rule and the way out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trainer.data.source import Schema

SKIP_HINT = "correct it, or leave such records out with data.skip_bad_records"


class DataError(ValueError):
    """The data is not what the config says. The message is one sentence for the user.

    Attributes:
        file: The file, folder or data set.
        record: The record in it ("record 17", "line 3"); empty where the whole file is meant.
        rule: What is wrong, with the value.
        change: What to do.
    """

    def __init__(self, file: object, record: str, rule: str, change: str = SKIP_HINT):
        self.file = str(file)
        self.record = record
        self.rule = rule
        self.change = change
        where = f"{self.file}, {record}" if record else self.file
        super().__init__(f"{where}: {rule}: {change}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, str, str]]:
        """Keeps the parts when the error passes between processes."""
        return type(self), (self.file, self.record, self.rule, self.change)


def bad_rows(schema: Schema, arrays: Mapping[str, np.ndarray]) -> dict[int, str]:
    """Finds the samples that break a rule: NaN or infinite numbers, labels and categories out of range.

    Args:
        schema: The rules, by feature.
        arrays: Values by feature, each [B, ...]. Features that the schema does not name are not looked at.

    Returns:
        The first rule that each bad row breaks, by row.
    """
    found: dict[int, str] = {}
    for name, feature in schema.features.items():
        if name not in arrays:
            continue
        values = arrays[name]
        is_target = name == schema.target
        if values.dtype.kind in "fc" or str(values.dtype) == "bfloat16":
            for row in _rows_where(~np.isfinite(values)):
                found.setdefault(row, f"{_kind(is_target)} {name!r} holds {_first_not_finite(values[row])}")
            continue
        limit = schema.num_classes if is_target and not feature.shape else feature.num_values
        if limit is None or values.dtype.kind not in "iu":
            continue
        for row in _rows_where((values < 0) | (values >= limit)):
            sample = np.atleast_1d(values[row])
            value = sample[(sample < 0) | (sample >= limit)][0]
            found.setdefault(row, f"{_kind(is_target)} {name!r} is {value}, which is not in 0..{limit - 1}")
    return dict(sorted(found.items()))


def check_shapes(file: object, arrays: Mapping[str, np.ndarray]) -> int:
    """Checks that all arrays have one length, and gives it.

    Raises:
        DataError: The lengths differ, an array has no sample dimension, or there are no samples.
    """
    lengths = {name: len(values) if values.ndim else None for name, values in arrays.items()}
    if not lengths:
        raise DataError(file, "", "there are no arrays in it", "store at least the features and the target")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(file, "", f"the arrays differ in length ({listed})", "store one row a sample in every array")
    length = next(iter(lengths.values()))
    if not length:
        raise DataError(file, "", "it holds no samples", "store at least one sample")
    return length


def _rows_where(broken: np.ndarray) -> list[int]:
    return np.flatnonzero(broken.reshape(len(broken), math.prod(broken.shape[1:])).any(axis=1)).tolist()


def _first_not_finite(sample: np.ndarray) -> str:
    values = np.atleast_1d(sample)
    value = values[~np.isfinite(values)][0]
    return "NaN" if np.isnan(value) else "an infinite value"


def _kind(is_target: bool) -> str:
    return "label" if is_target else "feature"
