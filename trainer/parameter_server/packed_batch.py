"""A batch as one tensor of bytes: each argument of a call on another machine is a request of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.step.gradients import Batch


class Feature(NamedTuple):
    """One feature of a batch.

    Attributes:
        name: Of the feature.
        dtype: Of its elements.
        shape: Of the whole batch, [b, ...].
    """

    name: str
    dtype: tf.DType
    shape: tuple[int, ...]


Layout = tuple[Feature, ...]
"""How the features lie behind each other; a function is traced for one."""

_POSITION = Feature("", tf.int64, (2,))


def layout_of(batch: Batch) -> Layout:
    """How a batch is packed."""
    return tuple(Feature(name, value.dtype, tuple(value.shape)) for name, value in batch.items())  # type: ignore[arg-type]


def pack(batch: Batch, position: tuple[int, int]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """A batch on this machine, and two numbers that belong to it.

    Returns:
        uint8 [bytes], and the features that have no bytes to copy, such as texts.
    """
    parts = [np.array(position, np.int64)]
    others: dict[str, tf.Tensor] = {}
    for name, value in batch.items():
        if _has_bytes(value.dtype):
            parts.append(np.ascontiguousarray(value))
        else:
            others[name] = value
    return tf.constant(np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])), others


def unpack(
    layout: Layout, packed: tf.Tensor, others: Mapping[str, tf.Tensor]
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The batch, and the two numbers as int64 [2]; in a traced function."""
    inside = [_POSITION, *(feature for feature in layout if _has_bytes(feature.dtype))]
    sizes = [int(np.prod(feature.shape)) * feature.dtype.size for feature in inside]
    values = {f.name: _from_bytes(part, f) for part, f in zip(tf.split(packed, sizes), inside, strict=True)}
    position = values.pop(_POSITION.name)
    return {
        feature.name: values[feature.name] if feature.name in values else others[feature.name] for feature in layout
    }, position


def _has_bytes(dtype: tf.DType) -> bool:
    return dtype.is_floating or dtype.is_integer or dtype.is_bool


def _from_bytes(part: tf.Tensor, feature: Feature) -> tf.Tensor:
    if feature.dtype.is_bool:
        return tf.reshape(tf.cast(part, tf.bool), feature.shape)
    width = feature.dtype.size
    return tf.reshape(tf.bitcast(part if width == 1 else tf.reshape(part, [-1, width]), feature.dtype), feature.shape)
