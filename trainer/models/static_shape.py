"""Shapes that are known while a model is traced."""

from __future__ import annotations

from typing import cast

import tensorflow as tf


def sample_shape(x: tf.Tensor) -> tuple[int, ...]:
    """The shape without the batch dimension. Models here have inputs of fixed shape, so that XLA can compile them."""
    shape = tuple(x.shape)[1:]
    assert None not in shape, f"the shape {x.shape} is not static"
    return cast(tuple[int, ...], shape)
