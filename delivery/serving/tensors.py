"""Between `TensorProto` and numpy, as TensorFlow Serving reads and writes it, within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from delivery.serving.errors import ServingError, invalid
from delivery.serving.signature import Signature, TensorKind

# The field of TensorProto that each type goes to; clients read `response.outputs["scores"].float_val`.
_FIELDS: dict[Any, str] = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint8, tf.uint16), "int_val"),
}


def read_inputs(signature: Signature, protos: Mapping[str, Any], most_bytes: int) -> dict[str, np.ndarray]:
    """The inputs of a request, checked against the signature.

    Args:
        signature: That they go to.
        protos: `TensorProto` by input.
        most_bytes: That one tensor may take in memory: a proto may claim a large shape and bring one value.

    Raises:
        ServingError: INVALID_ARGUMENT: names, types, shapes or contents do not fit.
    """
    signature.check_names(set(protos))
    return {key: _read(proto, signature.inputs[key], most_bytes) for key, proto in protos.items()}


def _read(proto: Any, kind: TensorKind, most_bytes: int) -> np.ndarray:
    if proto.dtype != kind.dtype.as_datatype_enum:
        given = _type_name(proto.dtype)
        raise invalid(f"input {kind.name} is of type {given}, and must be {kind.dtype.name}")
    if proto.tensor_shape.unknown_rank:
        raise invalid(f"input {kind.name} has no shape")
    shape = tuple(dimension.size for dimension in proto.tensor_shape.dim)
    if min(shape, default=0) < 0:
        raise invalid(f"input {kind.name} has shape {list(shape)}: no length may be negative")
    kind.check_shape(shape)
    count, dtype = math.prod(shape), kind.array_dtype
    if count * dtype.itemsize > most_bytes:
        raise invalid(f"input {kind.name} of shape {list(shape)} takes more than {most_bytes} bytes")
    if proto.tensor_content and dtype.kind != "O":
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise invalid(
                f"input {kind.name} of shape {list(shape)} needs {count * dtype.itemsize} bytes of content, "
                f"and has {len(proto.tensor_content)}"
            )
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    if count == 0:
        return np.zeros(shape, dtype)
    field = _FIELDS.get(kind.dtype)
    values = getattr(proto, field) if field else None
    try:
        if values is None:
            return tf.make_ndarray(proto)
        if len(values) == count:
            return np.array(values, dtype).reshape(shape)
        if len(values) == 1:  # one value stands for all, as in TensorFlow
            return np.full(shape, values[0], dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(f"input {kind.name} cannot be read as {kind.dtype.name}: {error}") from None
    raise invalid(f"input {kind.name} of shape {list(shape)} needs {count} values, and has {len(values)}")


def _type_name(number: int) -> str:
    try:
        return tf.dtypes.as_dtype(number).name
    except (TypeError, ValueError):
        return str(number)


def write_outputs(signature: Signature, outputs: Mapping[str, np.ndarray], wanted: set[str], into: Any) -> None:
    """Fills the outputs of a response.

    Args:
        signature: That gave them.
        outputs: By name.
        wanted: The outputs that the client asked for; empty: all.
        into: The map of a `PredictResponse`.

    Raises:
        ServingError: INVALID_ARGUMENT: an output is asked for that there is not.
    """
    if unknown := sorted(wanted - outputs.keys()):
        raise invalid(f"signature {signature.name} gives {sorted(outputs)}, not {unknown[:10]}")
    for key, values in outputs.items():
        if not wanted or key in wanted:
            write_tensor(values, signature.outputs[key].dtype, into[key])


def write_tensor(values: np.ndarray, dtype: tf.DType, into: Any) -> None:
    """Fills a `TensorProto` by the field of its type, as TensorFlow Serving does unless told otherwise."""
    field = _FIELDS.get(dtype)
    if field is None:
        into.CopyFrom(tf.make_tensor_proto(values, dtype))
        return
    into.dtype = dtype.as_datatype_enum
    for size in np.shape(values):
        into.tensor_shape.dim.add().size = size
    getattr(into, field).extend(np.ravel(values).tolist())


def too_large(size: int, most: int) -> ServingError:
    """A request of more bytes than allowed."""
    return ServingError(
        "RESOURCE_EXHAUSTED", f"the request has {size} bytes, more than the {most} allowed", http_status=413
    )
