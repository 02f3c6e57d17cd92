"""A state whose arrays all hold one number, so that a snapshot of two writes would be seen."""

from collections.abc import Callable

import numpy as np

from trainer.checkpoint.host_buffer import ArraySpec

SPECS = {
    "weights": ArraySpec((100_000, 3), "float32"),
    "half": ArraySpec((7,), "bfloat16"),
    "step": ArraySpec((), "int64"),
}


def values(number: int) -> dict[str, Callable[[], np.ndarray]]:
    arrays = {name: np.full(spec.shape, number % 256, spec.numpy_dtype) for name, spec in SPECS.items()}
    return {name: lambda array=array: array for name, array in arrays.items()}
