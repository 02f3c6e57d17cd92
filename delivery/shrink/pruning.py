"""Structured pruning: whole neurons and filters are taken out, so that a smaller model of the same kind is left.

What is left is an ordinary config and the weights to begin with, so the fine-tuning is an ordinary run. A unit's
importance is the mean absolute activation that it has on training samples, times the norm of the weights that take it
up: how much the next layer would miss it.

Shape legend: R representative samples, U units of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras
import numpy as np

from trainer.config.model import (
    CnnModel,
    MlpModel,
    ModelConfig,
    TabularModel,
    TransformerLmModel,
)


@dataclass(frozen=True)
class Units:
    """The units of one layer, and what hangs on them.

    Attributes:
        layer: Whose outputs they are: its kernel's last axis, and its bias.
        activation: The layer behind which their activation is read; the layer itself where that includes it.
        consumer: The layer that takes them up, along the last but one axis of its kernel.
        group: Units that share one width of the config, and so keep equally many.
    """

    layer: str
    activation: str
    consumer: str
    group: str


@dataclass(frozen=True)
class Pruned:
    """A smaller model.

    Attributes:
        model: Its config section.
        arrays: Its weights by variable path, to be fine-tuned.
    """

    model: ModelConfig
    arrays: dict[str, np.ndarray]

    @property
    def num_parameters(self) -> int:
        """Numbers in the model."""
        return sum(value.size for path, value in self.arrays.items() if not path.endswith("seed_generator_state"))


class PruningRefused(ValueError):
    """The model cannot be pruned, or not so far. The message is one sentence for the user."""


def check_prunable(config: ModelConfig) -> None:
    """Makes sure that a kind of model has units that can be taken out.

    Raises:
        PruningRefused: It has none that are known here.
    """
    units_of(config)


def units_of(config: ModelConfig) -> list[Units]:
    """The units of a model that can be taken out.

    Raises:
        PruningRefused: None are known.
    """
    if isinstance(config, MlpModel | TabularModel):
        names = [f"hidden_{i}" for i in range(len(config.hidden))]
        return _chain([*names, "output"])
    if isinstance(config, CnnModel):
        names = [f"convolution_{i}" for i in range(len(config.filters))]
        return _chain([*names, "hidden", "output"])
    if isinstance(config, TransformerLmModel):
        blocks = [f"block_{i}" for i in range(config.layers)]
        return [
            Units(f"{b}_feed_forward_hidden", f"{b}_activation", f"{b}_feed_forward_output", "feed_forward")
            for b in blocks
        ]
    raise PruningRefused(
        f"model.name={config.name} has no units that --prune can take out: leave it out, or use a model of dense "
        "layers, a cnn or a transformer_lm"
    )


def prune(
    model: keras.Model,
    config: ModelConfig,
    arrays: Mapping[str, np.ndarray],
    samples: Mapping[str, np.ndarray],
    rate: float,
) -> Pruned:
    """Takes the least important share of each layer's units out.

    Args:
        model: Built from `config`; its activations on the samples are read, with the weights that it holds.
        config: The `model` section.
        arrays: The weights by variable path.
        samples: Real features, [R, ...] each.
        rate: Share of each layer's units to take out, in (0, 1); at least one unit stays.

    Raises:
        PruningRefused: The model has no units that can be taken out.
    """
    units = units_of(config)
    activations = _mean_activations(model, [unit.activation for unit in units], samples)
    smaller = dict(arrays)
    kept_units: dict[str, np.ndarray] = {}
    for unit in units:
        kernel, consumer = _path(arrays, unit.layer, "kernel"), _path(arrays, unit.consumer, "kernel")
        num_units = arrays[kernel].shape[-1]
        taken_up = _by_unit(arrays[consumer], num_units)
        importance = activations[unit.activation] * np.linalg.norm(taken_up, axis=1)
        num_kept = max(1, round(num_units * (1 - rate)))
        kept = np.sort(np.argsort(-importance, kind="stable")[:num_kept])
        kept_units[unit.layer] = kept
        smaller[kernel] = np.ascontiguousarray(smaller[kernel][..., kept])
        bias = _path(arrays, unit.layer, "bias")
        smaller[bias] = smaller[bias][kept]
        smaller[consumer] = _take_rows(smaller[consumer], kept, num_units)
    left = Pruned(config, smaller).num_parameters / Pruned(config, dict(arrays)).num_parameters
    return Pruned(_narrowed(config, units, kept_units, math.sqrt(left)), smaller)


def _chain(layers: Sequence[str]) -> list[Units]:
    return [Units(layer, layer, consumer, layer) for layer, consumer in pairwise(layers)]


def _narrowed(
    config: ModelConfig, units: Sequence[Units], kept: Mapping[str, np.ndarray], dropout: float
) -> ModelConfig:
    """The config of the widths that are left, its dropout times a factor: a smaller model overfits less, and dropout
    that fits the large one starves it. The factor, the root of the share of weights that are left, is that of Han et
    al., "Learning both weights and connections for efficient neural networks", 2015."""
    widths = {unit.group: len(kept[unit.layer]) for unit in units}
    assert isinstance(config, MlpModel | CnnModel | TabularModel | TransformerLmModel), "units_of refuses others"
    changed: dict[str, Any] = {"dropout": round(config.dropout * dropout, 4)}
    if isinstance(config, TransformerLmModel):
        changed["feed_forward"] = widths["feed_forward"]
    elif isinstance(config, CnnModel):
        filters = tuple(widths[f"convolution_{i}"] for i in range(len(config.filters)))
        changed |= {"filters": filters, "dense": widths["hidden"]}
    else:
        assert isinstance(config, MlpModel | TabularModel)
        changed["hidden"] = tuple(widths[f"hidden_{i}"] for i in range(len(config.hidden)))
    return config.model_copy(update=changed)


def _mean_activations(
    model: keras.Model, layers: Sequence[str], samples: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Mean absolute activation of each unit, [U] by layer, over samples and places."""
    outputs = {name: model.get_layer(name).output for name in dict.fromkeys(layers)}
    batch = dict(samples) if len(samples) > 1 else next(iter(samples.values()))
    found = keras.Model(model.input, outputs)(batch, training=False)
    return {
        name: np.abs(np.asarray(values, np.float32)).reshape(-1, values.shape[-1]).mean(0)
        for name, values in found.items()
    }


def _by_unit(kernel: np.ndarray, num_units: int) -> np.ndarray:
    """The consumer's weights as [U, all weights of the unit].

    A convolution is [H, W, U, out]; a dense layer is [U, out], or [H*W*U, out] behind a flattened image, whose last
    axis, the units, runs fastest.
    """
    parts = kernel.reshape(-1, num_units, kernel.shape[-1])
    return parts.transpose(1, 0, 2).reshape(num_units, -1)


def _take_rows(kernel: np.ndarray, kept: np.ndarray, num_units: int) -> np.ndarray:
    if kernel.ndim == 4:
        return np.ascontiguousarray(kernel[:, :, kept])
    parts = kernel.reshape(-1, num_units, kernel.shape[-1])[:, kept]
    return np.ascontiguousarray(parts.reshape(-1, kernel.shape[-1]))


def _path(arrays: Mapping[str, np.ndarray], layer: str, kind: str) -> str:
    """The variable of a layer: Keras may put the model's name before it."""
    wanted = f"{layer}/{kind}"
    return next(path for path in arrays if path == wanted or path.endswith(f"/{wanted}"))
