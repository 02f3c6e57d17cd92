"""From batches of features and answers to columns: one number or one name a sample, which distributions have.

Shape legend: B batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from delivery.package.training_sample import PREDICTION

MOST_COMPONENTS = 8
"""A vector of at most so many numbers has one column for each; of a larger one its summary is watched."""

Columns = dict[str, np.ndarray]


def columns_of(arrays: Mapping[str, np.ndarray]) -> Columns:
    """The columns of named arrays [B, ...]: float64 [B] for numbers, text [B] for names and classes.

    A scalar is a column itself, and so is each component of a short vector. An image or a long vector gives its `mean`
    and its `spread` (standard deviation); scores of classes give the `top` class, and how `sure` it is. Answers that
    only repeat others in another form, logits and labels, are left out where `probabilities` and `classes` are there.

    >>> columns = columns_of({"age": np.array([30.0, 41.0]), "prediction:classes": np.array([2, 0])})
    >>> {name: values.tolist() for name, values in columns.items()}
    {'age': [30.0, 41.0], 'prediction:classes': ['2', '0']}
    """
    columns: Columns = {}
    repeated = _repeated(arrays)
    for name, given in arrays.items():
        if name not in repeated:
            columns |= _columns_of_one(name, np.asarray(given))
    return columns


def _repeated(arrays: Mapping[str, np.ndarray]) -> set[str]:
    answers = {name.removeprefix(PREDICTION) for name in arrays if name.startswith(PREDICTION)}
    repeated = set()
    if "probabilities" in answers:
        repeated.add("logits")
    if "classes" in answers:
        repeated.add("labels")
    return {PREDICTION + name for name in repeated}


def _columns_of_one(name: str, values: np.ndarray) -> Columns:
    if values.dtype.kind in "SUO":
        flat = values.reshape(len(values), -1)
        parts = {
            name if flat.shape[1] == 1 else f"{name}[{i}]": flat[:, i]
            for i in range(min(flat.shape[1], MOST_COMPONENTS))
        }
        return {part: _as_text(column) for part, column in parts.items()}
    is_class = name == f"{PREDICTION}classes" or values.dtype.kind == "b"
    flat = values.reshape(len(values), -1)
    if flat.shape[1] == 0:
        return {}
    if is_class:
        return {name: flat[:, 0].astype(np.int64).astype(str)}
    if name == f"{PREDICTION}probabilities" and flat.shape[1] > 1:
        return {f"{name}.sure": flat.max(1).astype(np.float64)}
    if flat.shape[1] == 1:
        return {name: flat[:, 0].astype(np.float64)}
    if flat.shape[1] <= MOST_COMPONENTS:
        return {f"{name}[{i}]": flat[:, i].astype(np.float64) for i in range(flat.shape[1])}
    numbers = flat.astype(np.float32, copy=False)
    return {f"{name}.mean": numbers.mean(1, dtype=np.float64), f"{name}.spread": numbers.std(1, dtype=np.float64)}


def _as_text(values: np.ndarray) -> np.ndarray:
    """Names as text; serving gets them as bytes."""
    return np.array([one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values], object)


def metric_name(column: str) -> str:
    """A column's name as a label that no query has to quote.

    >>> metric_name("prediction:probabilities.sure")
    'prediction_probabilities_sure'
    """
    return re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_")
