"""Computes the requests of one batch together, on a worker thread, and lets a bad one fail alone.

Shape legend: B rows of all requests, P rows after padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from delivery.serving.errors import BY_NUMBER, ServingError
from delivery.serving.signature import Signature

Arrays = Mapping[str, np.ndarray]


def padded_size(rows: int, sizes: Sequence[int]) -> int:
    """The smallest allowed size that holds the rows, or the rows themselves above the largest.

    >>> padded_size(5, (1, 2, 4, 8)), padded_size(9, (1, 2, 4, 8))
    (8, 9)
    """
    return next((size for size in sizes if size >= rows), rows)


def compute(
    signature: Signature, requests: Sequence[Arrays], rows: Sequence[int], sizes: Sequence[int]
) -> list[Arrays | Exception]:
    """Answers each request, or says why it cannot be answered.

    Args:
        signature: That all of them go to.
        requests: Their inputs; the same shapes but for the rows. One only, if the signature takes no batches.
        rows: Of each.
        sizes: Allowed sizes of a batch: with no other ever seen, nothing is traced or compiled anew.

    Returns:
        For each the outputs, or a `ServingError`.
    """
    try:
        if not signature.is_batched:
            assert len(requests) == 1
            return [signature(requests[0])]
        return _split(signature(_joined(requests, sum(rows), sizes)), rows, sizes)
    except tf.errors.OpError as error:
        if len(requests) == 1:
            return [_explained(error)]
    # Whose fault it is, is found by halving: a batch of 64 with one bad request costs about 12 calls, not 64.
    half = len(requests) // 2
    return [
        *compute(signature, requests[:half], rows[:half], sizes),
        *compute(signature, requests[half:], rows[half:], sizes),
    ]


def _joined(requests: Sequence[Arrays], rows: int, sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """[P, ...] by input; padded with copies of the last row, which is as valid as the request that it is from."""
    padding = padded_size(rows, sizes) - rows
    if len(requests) == 1 and not padding:
        return dict(requests[0])
    joined = {}
    for key in requests[0]:
        parts = [request[key] for request in requests]
        if padding:
            parts.append(np.repeat(parts[-1][-1:], padding, axis=0))
        joined[key] = np.concatenate(parts)
    return joined


def _split(outputs: Arrays, rows: Sequence[int], sizes: Sequence[int]) -> list[Arrays | Exception]:
    total = padded_size(sum(rows), sizes)
    if wrong := [key for key, values in outputs.items() if len(values) != total]:
        error = ServingError("INTERNAL", f"output {wrong[0]} has another number of rows than the inputs")
        return [error for _ in rows]
    answers: list[Arrays | Exception] = []
    start = 0
    for count in rows:
        answers.append({key: values[start : start + count] for key, values in outputs.items()})
        start += count
    return answers


def _explained(error: tf.errors.OpError) -> ServingError:
    """TensorFlow's error without the names of nodes, which say nothing to a client."""
    lines = [line.strip() for line in (error.message or "").splitlines() if line.strip()]
    lines = [
        line
        for line in lines
        if not line.startswith(("[[", "<stack traces", "Detected at node", "Graph execution error"))
    ]
    return ServingError(BY_NUMBER.get(error.error_code, "INTERNAL"), (lines or ["the model failed"])[0][:500])
