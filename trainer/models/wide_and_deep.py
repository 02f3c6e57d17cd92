"""A linear model of categories and their crossings beside dense layers on embeddings.

Cheng et al., "Wide & deep learning for recommender systems" (2016). The wide part remembers single combinations, the
deep part generalises over them; both are trained together, by one optimizer.

Shape legend: B batch, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from trainer.config.table_models import WideAndDeepModel
from trainer.data.source import Schema
from trainer.models.columns import Columns
from trainer.models.inputs import as_logits, num_categories
from trainer.models.mlp import hidden_layers
from trainer.tasks.task import Task

_MULTIPLIER, _MIXER = -1640531535, 0x2C1B3C6D


class Crossing(layers.Layer):
    """The number of a combination of categories, int32 [B], from the number of each.

    Where the table has a place for every combination each has its own; else they are hashed by multiplications (Knuth,
    "The art of computer programming", volume 3, 6.4), so that the same combination always has the same place.

    Args:
        sizes: How many categories each column has.
        most: Places of the table.
    """

    def __init__(self, sizes: Sequence[int], most: int, **options: Any) -> None:
        super().__init__(dtype="int32", **options)
        self._sizes = list(sizes)
        self.size = min(math.prod(sizes), most)
        self._is_exact = math.prod(sizes) <= most

    def call(self, categories: Sequence[Any]) -> Any:
        """Categories int32 [B] each, in the order of the sizes."""
        columns = [keras.ops.cast(category, "int32") for category in categories]
        return self._placed(columns) if self._is_exact else self._hashed(columns)

    def _placed(self, columns: Sequence[Any]) -> Any:
        number = columns[0]
        for category, size in zip(columns[1:], self._sizes[1:], strict=True):
            number = number * size + category
        return number

    def _hashed(self, columns: Sequence[Any]) -> Any:
        ops, number = keras.ops, columns[0]
        # Products wrap around. What a product has mixed is in its upper bits, and a shift brings it down.
        for category in (*columns[1:], 0):
            number = number * np.int32(_MULTIPLIER)
            number = ops.bitwise_xor(ops.bitwise_xor(number, ops.right_shift(number, 15)), category)
        number = number * np.int32(_MIXER)
        return ops.mod(ops.bitwise_xor(number, ops.right_shift(number, 13)), self.size)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of one column."""
        return input_shape[0]


def wide_and_deep(config: WideAndDeepModel, schema: Schema, task: Task) -> keras.Model:
    """Logits of both parts, added.

    Raises:
        ValueError: A crossing names a column that is no category.
    """
    columns = Columns(task.input_features)
    outputs = task.output_shape[-1]
    # A weight for each category and output, 0 at first: a table of embeddings is a linear model without the zeros.
    wide = [columns.embedded(name, outputs, "wide", zero=True) for name in columns.categories]
    wide += [_crossed(columns, cross, config.cross_buckets, outputs) for cross in config.crosses]
    if columns.numbers:
        wide.append(layers.Dense(outputs, use_bias=False, name="linear")(columns.normalised))
    deep = hidden_layers(columns.joined(config.embedding), config.hidden, config.activation, config.dropout)
    x = layers.Add(name="wide_and_deep")([*wide, layers.Dense(outputs, name="output")(deep)])
    return columns.model(as_logits(x, task), config.name)


def _crossed(columns: Columns, cross: Sequence[str], most: int, outputs: int) -> Any:
    for name in cross:
        if name not in columns.categories:
            known = ", ".join(columns.categories) or "none"
            raise ValueError(
                f"model.crosses names {name!r}, which is no category of the data: use those that are ({known})"
            )
    label = "_x_".join(cross)
    crossing = Crossing([num_categories(columns.categories[name]) for name in cross], most, name=f"cross_{label}")
    number = crossing([columns.inputs[name] for name in cross])
    table = layers.Embedding(crossing.size, outputs, embeddings_initializer="zeros", name=f"wide_{label}")
    return layers.Flatten(name=f"wide_flatten_{label}")(table(number))
