"""What arrays mean: from names, shapes and numpy types to a schema, and from arrays to what the schema says.

One set of rules for all arrays that users bring:

- uint8 of two or three dimensions a sample is an image; it becomes float32 [H, W, C] in [0, 1].
- Any other integer becomes int32, any other float float32.
- The target: one integer a sample is a class, one float a number; a row of integers, each 0 or 1, is a label set.

Shape legend: H height, W width, C channels, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainer.data.checks import DataError, check_shapes
from trainer.data.source import Feature, Schema


def describe_arrays(
    arrays: Mapping[str, np.ndarray], file: object, target: str | None, num_classes: int | None = None
) -> Schema:
    """Makes the schema of arrays of one row a sample.

    Args:
        arrays: Values by name.
        file: Where they come from, for messages.
        target: The array to predict; None for language modelling.
        num_classes: Of an integer target, or of tokens; without it, the largest value + 1.

    Raises:
        DataError: The lengths differ, the target is missing, or a type is neither integer nor float.
    """
    num_samples = check_shapes(file, arrays)
    if target is not None and target not in arrays:
        has = f"it has {', '.join(arrays)}"
        raise DataError(file, "", f"there is no array {target!r}, {has}", "set data.target to the one to predict")
    if set(arrays) == {target}:
        raise DataError(file, "", f"there is nothing in it but the target {target!r}", "store the features too")
    features: dict[str, Feature] = {}
    for name, values in arrays.items():
        shape = values.shape[1:]
        kind = _kind(values, file, name)
        if name == target:
            is_set = len(shape) == 1 and kind != "float"
            is_class = kind != "float" and not shape
            mean, std = (None, None) if is_class or is_set else mean_and_deviation(values)
            features[name] = Feature(shape, "int32" if is_class else "float32", mean=mean, std=std)
            if num_classes is None and kind != "float" and not shape:
                num_classes = int(values.max()) + 1
            elif is_set:
                num_classes = shape[0]
        elif kind == "image":
            features[name] = Feature(shape if len(shape) == 3 else (*shape, 1), "float32")
        elif kind == "integer":
            # A range only where there can be one: an embedding has no row for a negative number.
            largest = int(values.max()) + 1 if values.min() >= 0 else None
            features[name] = Feature(shape, "int32", num_values=largest)
        else:
            features[name] = Feature(shape, "float32")
    if target is None:
        num_classes = _num_tokens(features, file, num_classes)
        features = {name: Feature(f.shape, f.dtype, num_values=num_classes) for name, f in features.items()}
    return Schema(features, target, num_samples, num_classes)


def mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of what is finite; (0, 1) of nothing, and 1 for what has no scale of its own."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return mean, std if std > 1e-12 * max(1.0, abs(mean)) else 1.0


def conform_arrays(arrays: Mapping[str, np.ndarray], schema: Schema, file: object) -> dict[str, np.ndarray]:
    """Brings arrays to the shapes and types of a schema; images stay uint8.

    Raises:
        DataError: An array is missing, or has another shape or kind of number than the schema says.
    """
    check_shapes(file, arrays)
    conformed = {}
    for name, feature in schema.features.items():
        if name not in arrays:
            rule = f"there is no array {name!r}, which the training data have"
            raise DataError(file, "", rule, "store the same arrays as for training")
        values = arrays[name]
        kind = "float" if name == schema.target and values.dtype.kind in "iub" else _kind(values, file, name)
        if kind == "image" and values.ndim == 3:
            values = values[..., None]
        if values.shape[1:] != feature.shape or (feature.dtype == "int32" and values.dtype.kind not in "iub"):
            found = f"{values.dtype} of shape {list(values.shape[1:])} a sample"
            rule = f"array {name!r} is {found}, where {feature.dtype} of shape {list(feature.shape)} is expected"
            raise DataError(file, "", rule, "store both splits alike")
        conformed[name] = values if kind == "image" else values.astype(feature.dtype, copy=False)
    return conformed


def to_unit_range(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Brings the images among conformed arrays, uint8 in [0, 255], to float32 in [0, 1]."""
    return {
        name: values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else values
        for name, values in arrays.items()
    }


def _kind(values: np.ndarray, file: object, name: str) -> str:
    if values.dtype == np.uint8 and values.ndim in (3, 4):
        return "image"
    if values.dtype.kind in "iub":
        if values.dtype.itemsize > 4 or values.dtype == np.uint32:
            lowest, largest = values.min(), values.max()
            if lowest < -(2**31) or largest >= 2**31:
                rule = f"array {name!r} holds {largest if largest >= 2**31 else lowest}, more than 32 bits"
                raise DataError(file, "", rule, "store floats, or smaller integers")
        return "integer"
    if values.dtype.kind == "f" or str(values.dtype) == "bfloat16":
        return "float"
    raise DataError(
        file, "", f"array {name!r} is of type {values.dtype}, neither integer nor float", "store numbers instead"
    )


def _num_tokens(features: Mapping[str, Feature], file: object, num_classes: int | None) -> int:
    feature = next(iter(features.values()))
    if len(features) != 1 or feature.dtype != "int32" or len(feature.shape) != 1 or feature.num_values is None:
        rule = f"without a target the data must be one array of tokens, integers of [N, T + 1]; it has {list(features)}"
        raise DataError(file, "", rule, "set data.target, or store the tokens alone")
    return num_classes or feature.num_values
