"""Weights with few values and many zeros: N:M sparsity and clustering, which the fine-tuning then keeps.

Both shrink the compressed file, which is what travels to a device; the file itself and its speed stay as they are.

- N:M sparsity keeps the N largest of each M neighbours along the inputs (Mishra et al., "Accelerating sparse deep
  neural networks", 2021): 2:4 is what GPUs of the Ampere generation and later compute faster.
- Clustering replaces the weights of a tensor by K values, their centroids by k-means (Han, Mao and Dally, "Deep
  compression", 2016), begun at even distances from the smallest to the largest weight: that finds the few large ones,
  which matter most.

Shape legend: I inputs, O outputs, K centroids.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2, vq

from delivery.shrink.request import Ties
from trainer.config.tied import TiedConfig

_LEAST = 16
"""Weights for each centroid that a tensor must have; smaller ones are not worth it."""
_MOST_FITTED = 200_000
_ROUNDS = 30


@dataclass(frozen=True)
class Tied:
    """Weights that are tied.

    Attributes:
        arrays: By variable path; those that are not tied unchanged.
        config: Keeps them so.
    """

    arrays: dict[str, np.ndarray]
    config: TiedConfig


def tie(arrays: Mapping[str, np.ndarray], ties: Ties) -> Tied:
    """Makes weights sparse, then clusters what is left.

    Args:
        arrays: The weights by variable path. Kernels and tables of embeddings with enough weights are tied.
        ties: Asks for something.

    Raises:
        ValueError: No tensor is large enough.
    """
    changed, least = dict(arrays), _LEAST * (ties.clusters or 1)
    paths = [
        path
        for path, values in arrays.items()
        if values.ndim >= 2 and values.size >= least and re.search(r"(kernel|embeddings)$", path)
    ]
    if not paths:
        raise ValueError(f"--cluster {ties.clusters} needs a tensor of at least {least} weights: choose fewer values")
    for path in paths:
        if ties.sparse is not None and not path.endswith("embeddings"):
            changed[path] = sparsified(changed[path], *ties.sparse)
        if ties.clusters is not None:
            changed[path] = clustered(changed[path], ties.clusters)
    config = TiedConfig(
        variables=tuple(f"^{re.escape(path)}$" for path in paths),
        zeros=ties.sparse is not None,
        equal=ties.clusters is not None,
    )
    return Tied(changed, config)


def sparsified(kernel: np.ndarray, kept: int, of: int) -> np.ndarray:
    """Zeros in place of all but the largest `kept` of each `of` neighbours along the inputs, [..., I, O].

    Inputs behind the last whole group stay as they are.

    >>> sparsified(np.array([[1.0], [-4.0], [3.0], [2.0], [5.0]]), 2, 4).ravel().tolist()
    [0.0, -4.0, 3.0, 0.0, 5.0]
    """
    whole = kernel.shape[-2] // of * of
    groups = kernel[..., :whole, :].reshape(*kernel.shape[:-2], whole // of, of, kernel.shape[-1])
    ranks = np.argsort(np.argsort(-np.abs(groups), axis=-2, kind="stable"), axis=-2)
    changed = kernel.copy()
    changed[..., :whole, :] = np.where(ranks < kept, groups, 0).reshape(changed[..., :whole, :].shape)
    return changed


def clustered(values: np.ndarray, clusters: int) -> np.ndarray:
    """Each weight replaced by the nearest of K centroids; zeros stay zeros.

    >>> clustered(np.array([0.0, 1.0, 1.2, 5.0, 5.2], np.float32), 2).tolist() == [0, *np.float32([1.1, 1.1, 5.1, 5.1])]
    True
    """
    nonzero = values[values != 0].astype(np.float64)
    if len(nonzero) == 0:
        return values.copy()
    fitted = nonzero[:: -(-len(nonzero) // _MOST_FITTED)]
    start = np.linspace(nonzero.min(), nonzero.max(), clusters)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a centroid that nothing is near: it stays where it was
        centroids, _ = kmeans2(fitted[:, None], start, iter=_ROUNDS, minit="matrix")
    nearest, _ = vq(nonzero[:, None], centroids)
    changed = values.copy()
    changed[values != 0] = centroids[nearest, 0]
    return changed
