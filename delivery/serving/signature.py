"""What a signature of a SavedModel takes and gives, and whether requests to it can share a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from delivery.serving.errors import invalid


@dataclass(frozen=True)
class TensorKind:
    """Type and shape of one named tensor.

    Attributes:
        name: As clients name it.
        dtype: TensorFlow's.
        shape: None for a length that is free; None altogether where even the rank is.
    """

    name: str
    dtype: tf.DType
    shape: tuple[int | None, ...] | None

    @property
    def array_dtype(self) -> np.dtype[Any]:
        """numpy's type; object for strings."""
        return np.dtype(object) if self.dtype == tf.string else np.dtype(self.dtype.as_numpy_dtype)

    @property
    def has_free_rows(self) -> bool:
        """Whether the first dimension is free."""
        return bool(self.shape) and self.shape is not None and self.shape[0] is None

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuses a shape that the signature does not take.

        Raises:
            ServingError: INVALID_ARGUMENT.
        """
        if self.shape is None:
            return
        if len(shape) != len(self.shape) or any(
            want is not None and want != got for want, got in zip(self.shape, shape, strict=True)
        ):
            raise invalid(f"input {self.name} has shape {list(shape)}, and must have {shape_text(self.shape)}")


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape as clients read it.

    >>> shape_text((None, 28))
    '[?, 28]'
    """
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


class Signature:
    """One signature, callable.

    Args:
        name: As clients name it.
        function: The concrete function.
        method: The SavedModel's method name, such as `tensorflow/serving/predict`.

    Attributes:
        inputs, outputs: By name.
        is_batched: Whether rows of several requests may go through it together. Decided by the shapes, and taken
            back by the warm-up if an output has another number of rows than the inputs.
    """

    def __init__(self, name: str, function: Any, method: str) -> None:
        self.name, self.method, self._function = name, method, function
        self.inputs = {key: _kind(key, spec) for key, spec in function.structured_input_signature[1].items()}
        self.outputs = {key: _kind(key, spec) for key, spec in function.structured_outputs.items()}
        tensors = [*self.inputs.values(), *self.outputs.values()]
        self.is_batched = bool(self.inputs) and all(kind.has_free_rows for kind in tensors)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes, on any thread.

        Raises:
            tf.errors.OpError: The model cannot answer these inputs.
        """
        tensors = {key: tf.constant(value, self.inputs[key].dtype) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in self._function(**tensors).items()}

    def check_names(self, given: set[str]) -> None:
        """Refuses inputs that the signature does not have, and the lack of those that it has.

        Raises:
            ServingError: INVALID_ARGUMENT.
        """
        if given != self.inputs.keys():
            missing, extra = sorted(self.inputs.keys() - given), sorted(given - self.inputs.keys())
            raise invalid(
                f"signature {self.name} takes the inputs {sorted(self.inputs)}: "
                + "; ".join(
                    text
                    for text in (
                        f"{missing} missing" if missing else "",
                        f"{extra[:10]} not known" if extra else "",
                    )
                    if text
                )
            )

    def rows(self, inputs: Mapping[str, np.ndarray]) -> int:
        """How many rows the inputs have, the same in all; 1 where rows mean nothing.

        Raises:
            ServingError: INVALID_ARGUMENT: they differ, or are none.
        """
        if not self.is_batched:
            return 1
        counts = {key: len(value) for key, value in inputs.items()}
        if len(set(counts.values())) != 1:
            raise invalid(f"the inputs must have the same number of rows, and have {counts}")
        (count,) = set(counts.values())
        if count == 0:
            raise invalid("the inputs have no row: send at least one")
        return count


def _kind(name: str, spec: Any) -> TensorKind:
    return TensorKind(name, spec.dtype, None if spec.shape.rank is None else tuple(spec.shape.as_list()))
