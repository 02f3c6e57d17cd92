"""Layers that cross columns, and dense layers: a deep and cross network.

Wang et al., "DCN V2: improved deep & cross network" (2020). A cross layer multiplies what there is by the columns
themselves: after L of them the features are polynomials of degree L + 1 in the columns.

Shape legend: B batch, D width of all columns together, R rank.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.config.table_models import DcnModel
from trainer.data.source import Schema
from trainer.models.columns import Columns
from trainer.models.inputs import as_logits
from trainer.models.mlp import hidden_layers
from trainer.tasks.task import Task


def dcn(config: DcnModel, schema: Schema, task: Task) -> keras.Model:
    """Cross layers on embedded categories and normalised numbers, and dense layers after or beside them.

    Raises:
        ValueError: `model.low_rank` saves nothing.
    """
    columns = Columns(task.input_features)
    x_0 = columns.joined(config.embedding)
    width = x_0.shape[-1]
    if config.low_rank is not None and 2 * config.low_rank >= width:
        raise ValueError(
            f"model.low_rank={config.low_rank} must be below half of {width}, the numbers that the columns become, "
            "or it saves nothing: lower it, or set it to null for full matrices"
        )
    crossed = x_0
    for i in range(config.cross_layers):
        crossed = _crossed(x_0, crossed, config.low_rank, i)
    if config.structure == "stacked":
        x = hidden_layers(crossed, config.hidden, config.activation, config.dropout)
    else:
        deep = hidden_layers(x_0, config.hidden, config.activation, config.dropout)
        x = layers.Concatenate(name="cross_and_deep")([crossed, deep])
    x = layers.Dense(task.output_shape[-1], name="output")(x)
    return columns.model(as_logits(x, task), config.name)


def _crossed(x_0: Any, x: Any, low_rank: int | None, i: int) -> Any:
    """x_0 * (W x + b) + x, [B, D], where W may be the product of [D, R] and [R, D]."""
    if low_rank is not None:
        factor = layers.Dense(low_rank, use_bias=False, name=f"cross_{i}_down")(x)
        factor = layers.Dense(x_0.shape[-1], name=f"cross_{i}_up")(factor)
    else:
        factor = layers.Dense(x_0.shape[-1], name=f"cross_{i}")(x)
    return layers.Add(name=f"cross_{i}_add")([layers.Multiply(name=f"cross_{i}_product")([x_0, factor]), x])
