"""The columns of a table as a model sees them: one input each, categories embedded, numbers normalised.

Shape legend: B batch, D width of an embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from trainer.data.source import Feature
from trainer.models.inputs import is_category, model_input, num_categories


class Columns:
    """The inputs of a model of tables.

    Args:
        features: By name.
        label: Begins the names of the layers, where a model has several such groups of columns.

    Attributes:
        inputs: A symbolic batch of each feature, by name.
        categories: The features of categories, by name.
        numbers: All others.
    """

    def __init__(self, features: Mapping[str, Feature], label: str = "") -> None:
        self._label = label
        self.inputs = {name: model_input(name, feature) for name, feature in features.items()}
        self.categories = {name: feature for name, feature in features.items() if is_category(feature)}
        self.numbers = {name: feature for name, feature in features.items() if not is_category(feature)}

    def joined(self, embedding: int) -> Any:
        """Embeddings of at most this width, and then the normalised numbers, side by side: [B, features]."""
        columns = [self.embedded(name, narrowed(feature, embedding)) for name, feature in self.categories.items()]
        columns += [self.normalised] if self.numbers else []
        return layers.Concatenate(name=f"{self._label}columns")(columns) if len(columns) > 1 else columns[0]

    def embedded(self, name: str, width: int, prefix: str = "embed", zero: bool = False) -> Any:
        """Learned numbers for a category, [B, width]; all 0 at first where it is said."""
        table = layers.Embedding(
            num_categories(self.categories[name]),
            width,
            embeddings_initializer="zeros" if zero else "uniform",
            name=f"{prefix}_{name}",
        )
        flat = "flatten" if prefix == "embed" else f"{prefix}_flatten"
        return layers.Flatten(name=f"{flat}_{name}")(table(self.inputs[name]))

    @functools.cached_property
    def normalised(self) -> Any:
        """All numbers, less their means and in units of their deviations, [B, numbers]."""
        columns, means, variances = [], [], []
        for name, feature in self.numbers.items():
            # In float32 until the scale is small: a year in 16 bits is as good as any other.
            columns.append(layers.Reshape((-1,), dtype="float32", name=f"column_{name}")(self.inputs[name]))
            means += [feature.mean or 0.0] * columns[-1].shape[-1]
            variances += [(feature.std or 1.0) ** 2] * columns[-1].shape[-1]
        x = (
            layers.Concatenate(dtype="float32", name=f"{self._label}numbers")(columns)
            if len(columns) > 1
            else columns[0]
        )
        return layers.Normalization(mean=means, variance=variances, dtype="float32", name=f"{self._label}normalise")(x)

    def model(self, outputs: Any, name: str) -> keras.Model:
        """The model from the inputs to these outputs; of one input it takes the tensor itself."""
        return keras.Model(
            self.inputs if len(self.inputs) > 1 else next(iter(self.inputs.values())), outputs, name=name
        )


def narrowed(feature: Feature, width: int) -> int:
    """The width of an embedding: two categories need no more than one number, three no more than two."""
    return min(width, max(1, num_categories(feature) - 1))
