"""TensorFlow Serving's Classify and Regress on signatures of named tensors: `tf.Example` in, labels and scores out.

Shape legend: B examples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from delivery.serving.errors import ServingError, invalid
from delivery.serving.gateway import Answered
from delivery.serving.signature import Signature, TensorKind

_SCORES = ("scores", "probabilities")
_VALUES = ("outputs", "values")


def read_examples(signature: Signature, examples: Sequence[Any]) -> dict[str, np.ndarray]:
    """The inputs of a signature from examples.

    A signature that parses examples itself, with one input of strings, gets them serialised; another one gets the
    features that its inputs are called.

    Raises:
        ServingError: INVALID_ARGUMENT: there is no example, or a feature does not fit.
    """
    if not examples:
        raise invalid("the request has no example: send at least one")
    only = next(iter(signature.inputs.values())) if len(signature.inputs) == 1 else None
    if only is not None and only.dtype == tf.string and only.name in ("inputs", "examples", "input_example_tensor"):
        return {only.name: np.array([example.SerializeToString() for example in examples], object)}
    return {key: np.stack([_feature(example, kind) for example in examples]) for key, kind in signature.inputs.items()}


def _feature(example: Any, kind: TensorKind) -> np.ndarray:
    features: Mapping[str, Any] = example.features.feature
    which = features[kind.name].WhichOneof("kind") if kind.name in features else None
    if which is None:
        raise invalid(f"an example has no feature {kind.name}")
    wants = "bytes_list" if kind.dtype == tf.string else "float_list" if kind.dtype.is_floating else "int64_list"
    if which not in (wants, "int64_list" if wants == "float_list" else wants):
        raise invalid(f"feature {kind.name} is a {which}, and must be a {wants}")
    values = np.array(getattr(features[kind.name], which).value, object if wants == "bytes_list" else None)
    if (
        kind.dtype.is_integer
        and values.size
        and not (kind.dtype.min <= values.min() and values.max() <= kind.dtype.max)
    ):
        raise invalid(f"feature {kind.name} has a value that {kind.dtype.name} cannot hold")
    shape = [-1 if size is None else size for size in (kind.shape or (None,))[1:]]
    try:
        return values.astype(kind.array_dtype).reshape(shape)
    except ValueError:
        raise invalid(f"feature {kind.name} has {values.size} values, and must have shape {shape}") from None


def classes_of(answered: Answered) -> list[list[tuple[str, float]]]:
    """Label and score of every class, [B] lists of C pairs.

    Raises:
        ServingError: INVALID_ARGUMENT: the signature gives no scores.
    """
    scores = _one_of(answered, _SCORES, "classify")
    if scores.ndim == 1:
        scores = scores[:, None]
    named = answered.outputs.get("classes")
    if named is not None and named.dtype == object and named.shape == scores.shape:
        labels = [[_text(name) for name in row] for row in named]
    else:
        names = answered.version.loaded.class_names
        if len(names) != scores.shape[1]:
            names = tuple(str(index) for index in range(scores.shape[1]))
        labels = [list(names)] * len(scores)
    return [list(zip(row, values, strict=True)) for row, values in zip(labels, scores.tolist(), strict=True)]


def values_of(answered: Answered) -> list[float]:
    """The value of every example, [B].

    Raises:
        ServingError: INVALID_ARGUMENT: the signature gives no single value.
    """
    values = _one_of(answered, _VALUES, "regress")
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise invalid(f"signature {answered.signature.name} gives several values an example: use predict")
    return values.tolist()


def _one_of(answered: Answered, names: Sequence[str], method: str) -> np.ndarray:
    for name in names:
        if name in answered.outputs and np.issubdtype(answered.outputs[name].dtype, np.floating):
            return answered.outputs[name]
    raise ServingError(
        "INVALID_ARGUMENT",
        f"signature {answered.signature.name} cannot {method}: it gives {sorted(answered.outputs)}; use predict",
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
