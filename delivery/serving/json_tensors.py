"""Between JSON and numpy, as TensorFlow Serving's REST protocol has it: rows, columns, bytes in base64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from delivery.serving.batch_computation import Arrays
from delivery.serving.errors import invalid
from delivery.serving.signature import Signature, TensorKind


def read_json(signature: Signature, body: dict[str, Any]) -> dict[str, np.ndarray]:
    """The inputs of a request, from `instances` (rows) or `inputs` (columns).

    Raises:
        ServingError: INVALID_ARGUMENT: it has neither or both, or they do not fit the signature.
    """
    if ("instances" in body) == ("inputs" in body):
        raise invalid("the request must have either instances (rows) or inputs (columns)")
    columns = _from_rows(signature, body["instances"]) if "instances" in body else body["inputs"]
    if not isinstance(columns, dict) or (set(columns) == {"b64"} and "b64" not in signature.inputs):
        if len(signature.inputs) != 1:
            raise invalid(f"signature {signature.name} has the inputs {sorted(signature.inputs)}: name them")
        columns = {next(iter(signature.inputs)): columns}
    signature.check_names(set(columns))
    return {key: _array(value, signature.inputs[key]) for key, value in columns.items()}


def _from_rows(signature: Signature, rows: Any) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows:
        raise invalid("instances must be a list of at least one")
    if all(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
        for row in rows:
            signature.check_names(set(row))
        return {key: [row[key] for row in rows] for key in signature.inputs}
    if len(signature.inputs) != 1:
        raise invalid(
            f"signature {signature.name} has the inputs {sorted(signature.inputs)}: name them in each instance"
        )
    return {next(iter(signature.inputs)): rows}


def _array(value: Any, kind: TensorKind) -> np.ndarray:
    dtype = kind.array_dtype
    try:
        array = np.array(json_bytes(value) if dtype.kind == "O" else value, object if dtype.kind == "O" else None)
    except (ValueError, OverflowError, RecursionError):
        raise invalid(f"input {kind.name} is ragged or nested too deeply") from None
    kind.check_shape(array.shape)
    if dtype.kind == "O":
        if not all(isinstance(item, bytes) for item in array.flat):
            raise invalid(f"input {kind.name} must hold strings only, nested evenly")
        return array
    if array.size == 0:
        return array.astype(dtype)
    fits = {"b": "b", "i": "iu", "u": "iu"}.get(dtype.kind, "iuf")
    if array.dtype.kind not in fits:
        raise invalid(f"input {kind.name} has values that are no {kind.dtype.name}")
    if dtype.kind in "iu" and not (np.iinfo(dtype).min <= array.min() and array.max() <= np.iinfo(dtype).max):
        raise invalid(f"input {kind.name} has values that {kind.dtype.name} cannot hold")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def json_bytes(value: Any) -> Any:
    """Strings and base64 objects as bytes, at any depth; anything else as it is."""
    if isinstance(value, list):
        return [json_bytes(item) for item in value]
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:  # JSON's escapes can spell half a character
            raise invalid("a text is no Unicode: it holds half of a surrogate pair") from None
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError:  # binascii's own among them
            raise invalid("a b64 value is not base64") from None
    return value


def write_json(outputs: Arrays, rows: bool) -> Any:
    """What goes below `predictions` (rows) or `outputs` (columns).

    Raises:
        ServingError: INVALID_ARGUMENT: the outputs have no rows in common.
    """
    columns = {key: _listed(key, value) for key, value in outputs.items()}
    if not rows:
        return next(iter(columns.values())) if len(columns) == 1 else columns
    if len({len(value) if np.ndim(value) else -1 for value in outputs.values()}) != 1:
        raise invalid("the outputs have different numbers of rows: send inputs (columns) instead of instances")
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _listed(key: str, values: np.ndarray) -> Any:
    if values.dtype.kind == "O":
        return _texts(values.tolist(), key.endswith("_bytes"))
    return values.tolist()


def _texts(value: Any, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, as_bytes) for item in value]
    return {"b64": base64.b64encode(value).decode()} if as_bytes else value.decode("utf-8", "replace")
