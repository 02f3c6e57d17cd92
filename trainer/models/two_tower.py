"""One network for people and one for items; a product of their vectors says how well they fit.

Covington et al., "Deep neural networks for YouTube recommendations" (2016); Yi et al., "Sampling-bias-corrected neural
modeling for large corpus item recommendations" (2019). The vectors of all items can be stored and searched: a person
needs one run of one tower.

Shape legend: B batch, D width of a vector.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.config.recommendation import TwoTowerModel
from trainer.data.source import Schema
from trainer.models.columns import Columns
from trainer.models.inputs import as_logits
from trainer.models.mlp import hidden_layers
from trainer.tasks.task import Task

TOWERS = ("user_", "item_")
"""What the names of the features of each tower begin with."""


def two_tower(config: TwoTowerModel, schema: Schema, task: Task) -> keras.Model:
    """Features of a person and of an item to both vectors, [B, 2, D].

    Raises:
        ValueError: The task wants no two vectors, or a tower has no features.
    """
    if len(task.output_shape) != 2 or task.output_shape[0] != 2:
        raise ValueError(
            f"model.name=two_tower gives two vectors, but the task's output has shape {list(task.output_shape)}: "
            "set task.name=retrieval, or choose another model.name"
        )
    towers = []
    for label in TOWERS:
        features = {name: it for name, it in task.input_features.items() if name.startswith(label)}
        if not features:
            known = ", ".join(task.input_features)
            raise ValueError(
                f"model.name=two_tower needs features whose names begin with {label!r}, but the data has {known}: "
                "rename them, or choose another model.name"
            )
        towers.append(Columns(features, label))
    vectors = [
        _vector(columns, config, task.output_shape[1], label) for label, columns in zip(TOWERS, towers, strict=True)
    ]
    inputs = {name: tensor for columns in towers for name, tensor in columns.inputs.items()}
    others = [name for name in task.input_features if name not in inputs]
    if others:
        raise ValueError(
            f"model.name=two_tower has no place for {others[0]!r}: let its name begin with user_ or item_, or leave "
            "it out"
        )
    pair = layers.Concatenate(axis=1, dtype="float32", name="vectors")(vectors)
    return keras.Model(inputs, as_logits(pair), name=config.name)


def _vector(columns: Columns, config: TwoTowerModel, width: int, label: str) -> Any:
    """[B, 1, D]."""
    x = hidden_layers(columns.joined(config.embedding), config.hidden, config.activation, config.dropout, label)
    x = layers.Dense(width, name=f"{label}vector")(x)
    if config.normalise:
        x = layers.UnitNormalization(dtype="float32", name=f"{label}unit")(x)
    return layers.Reshape((1, width), name=f"{label}row")(x)
