"""Dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from trainer.config.model import MlpModel
from trainer.data.source import Schema
from trainer.models.inputs import as_logits, model_input, single_input
from trainer.tasks.task import Task


def mlp(config: MlpModel, schema: Schema, task: Task) -> keras.Model:
    """Dense layers on the flattened sample.

    Raises:
        ValueError: The data has several features, or categories.
    """
    name, feature = single_input(task, config.name)
    inputs = model_input(name, feature)
    x = keras.layers.Flatten(name="flatten")(inputs) if len(feature.shape) != 1 else inputs
    x = hidden_layers(x, config.hidden, config.activation, config.dropout)
    x = keras.layers.Dense(task.output_shape[-1], name="output")(x)
    return keras.Model(inputs, as_logits(x, task), name=config.name)


def hidden_layers(x: Any, widths: Sequence[int], activation: str, dropout: float, label: str = "") -> Any:
    """Dense layers on [B, features], each followed by dropout; `label` begins their names."""
    for i, width in enumerate(widths):
        x = keras.layers.Dense(width, activation=activation, name=f"{label}hidden_{i}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"{label}dropout_{i}")(x)
    return x
