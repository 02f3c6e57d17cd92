"""The source `synthetic`: made-up samples that can be learned, for trying a model and for measuring speed.

Shape legend: B batch, P samples in the pool, T tokens.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import tensorflow as tf

from trainer.config.data import SyntheticData
from trainer.data.held_out import Split
from trainer.data.memory import MemorySource
from trainer.data.source import Feature, Schema

# Different samples kept in memory, in bytes and in number; a longer source repeats them.
POOL_BYTES = 64 * 2**20
SMALLEST_POOL = 64


class SyntheticSource:
    """A pool of samples that repeats up to any length."""

    in_memory = True
    may_skip = False

    def __init__(self, pool: MemorySource, num_samples: int):
        self._pool = pool
        self.schema = replace(pool.schema, num_samples=num_samples)
        self.skipped, self.failure = pool.skipped, None

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers the samples at `index`, int64 [B]: every feature as [B, ...]."""
        return self._pool.read(tf.math.floormod(index, self._pool.schema.num_samples))

    def locate(self, index: int) -> str:
        """Names the sample."""
        return f"synthetic, sample {index}"


def open_synthetic(data: SyntheticData, split: Split) -> SyntheticSource:
    """Makes the samples of a split. Both splits follow one rule, which `data.data_seed` chooses."""
    num_samples = data.num_samples if split == "train" else data.held_out_samples
    size = max(SMALLEST_POOL, POOL_BYTES // (4 * math.prod(data.shape)))
    arrays, features = _MAKERS[data.kind](
        data, min(num_samples, size), np.random.default_rng([data.data_seed, split == "held_out"])
    )
    num_classes = None if data.kind == "regression" else data.num_classes
    schema = Schema(features, None if data.kind == "tokens" else "label", len(next(iter(arrays.values()))), num_classes)
    pool = MemorySource(schema, arrays, lambda index: ("synthetic", f"sample {index}"))
    return SyntheticSource(pool, num_samples)


Made = tuple[dict[str, np.ndarray], dict[str, Feature]]


def _classification(data: SyntheticData, size: int, draw: np.random.Generator) -> Made:
    """Noise around one pattern a class."""
    patterns = np.random.default_rng(data.data_seed).random((data.num_classes, *data.shape), np.float32)
    labels = draw.integers(0, data.num_classes, size).astype(np.int32)
    inputs = draw.random((size, *data.shape), np.float32)
    inputs *= 0.5
    for label, pattern in enumerate(patterns):
        inputs[labels == label] += 0.5 * pattern
    name = _input_name(data)
    return {name: inputs, "label": labels}, {
        name: Feature(data.shape, "float32"),
        "label": Feature((), "int32"),
    }


def _regression(data: SyntheticData, size: int, draw: np.random.Generator) -> Made:
    """A linear function of the inputs with noise of a tenth of its deviation."""
    weights = np.random.default_rng(data.data_seed).standard_normal(math.prod(data.shape)).astype(np.float32)
    inputs = draw.random((size, *data.shape), np.float32)
    values = inputs.reshape(size, -1) @ weights - weights.sum() / 2
    # A number from [0, 1) has a variance of 1 / 12, so the function's deviation becomes 1.
    values = values * np.float32(np.sqrt(12)) / np.linalg.norm(weights) + 0.1 * draw.standard_normal(size, np.float32)
    name = _input_name(data)
    return {name: inputs, "label": values.astype(np.float32)}, {
        name: Feature(data.shape, "float32"),
        "label": Feature((), "float32"),
    }


def _tokens(data: SyntheticData, size: int, draw: np.random.Generator) -> Made:
    """Sequences in which each token decides the next one nine times in ten; [T + 1] tokens a sample."""
    cycle = np.random.default_rng(data.data_seed).permutation(data.num_classes).astype(np.int32)
    follower = np.empty_like(cycle)
    follower[cycle] = np.roll(cycle, -1)
    tokens = draw.integers(0, data.num_classes, (size, data.shape[0] + 1)).astype(np.int32)
    follows = draw.random(tokens.shape) < 0.9
    for t in range(1, tokens.shape[1]):
        tokens[:, t] = np.where(follows[:, t], follower[tokens[:, t - 1]], tokens[:, t])
    return {"tokens": tokens}, {"tokens": Feature((data.shape[0] + 1,), "int32", num_values=data.num_classes)}


def _input_name(data: SyntheticData) -> str:
    return "image" if len(data.shape) == 3 else "features"


_MAKERS = {"classification": _classification, "regression": _regression, "tokens": _tokens}
