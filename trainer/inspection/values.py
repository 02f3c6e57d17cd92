"""What the values of each feature mean: the kind of a feature, and the names of its numbers.

Shape legend: B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from trainer.data.source import Feature, Schema

Kind = Literal["number", "integer", "category", "class", "text"]

MISSING = "(missing or unknown)"
"""What the number 0 of a category is called."""


def kind_of(name: str, schema: Schema) -> Kind:
    """Of a feature of the schema: "class" for a label that is one of several, "category" where numbers have names."""
    feature = schema.features[name]
    if feature.dtype == "string":
        return "text"
    if feature.vocabulary is not None or feature.hash_buckets is not None:
        return "category"
    if "int" not in feature.dtype and feature.dtype != "bool":
        return "number"
    return "class" if name == schema.target and not feature.shape and schema.num_classes else "integer"


def naming(name: str, schema: Schema) -> Callable[[int | str], str]:
    """The function that names a value of a feature for people and for files: its category, its class, or the number.

    A class or category that the schema does not name keeps its number.
    """
    feature, kind = schema.features[name], kind_of(name, schema)
    if kind == "category":
        names = _category_names(feature)
        return lambda value: names.get(int(value), str(value))
    if kind == "class" and schema.class_names is not None:
        classes = schema.class_names
        return lambda value: classes[int(value)] if 0 <= int(value) < len(classes) else str(value)
    return str


def known_names(name: str, schema: Schema) -> list[str] | None:
    """All names that a category or a class can have, missing not counted; None where they cannot be told."""
    kind = kind_of(name, schema)
    if kind == "category":
        vocabulary = schema.features[name].vocabulary
        return None if vocabulary is None else list(vocabulary)
    if kind == "class":
        return list(schema.class_names or map(str, range(schema.num_classes or 0)))
    return None


def flat_values(values: np.ndarray, kind: Kind) -> np.ndarray:
    """All values of a batch, [B, ...], side by side: float64, int64, or text."""
    flat = values.reshape(-1)
    if kind == "text":
        return np.array([one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in flat], str)
    return flat.astype(np.float64 if kind == "number" else np.int64)


def _category_names(feature: Feature) -> dict[int, str]:
    if feature.vocabulary is not None:
        return {0: MISSING} | {number + 1: name for number, name in enumerate(feature.vocabulary)}
    return {0: MISSING} | dict(feature.bucket_names or {})
