"""Dense layers on columns of a table."""

from __future__ import annotations

import keras
from keras import layers

from trainer.config.model import TabularModel
from trainer.data.source import Schema
from trainer.models.columns import Columns
from trainer.models.inputs import as_logits
from trainer.models.mlp import hidden_layers
from trainer.tasks.task import Task


def tabular(config: TabularModel, schema: Schema, task: Task) -> keras.Model:
    """Embeddings of the categories beside the normalised numbers, then dense layers.

    Categories come as numbers, since a look-up of strings cannot be compiled; `delivery.serving_inputs` puts one
    in front of an exported model.
    """
    columns = Columns(task.input_features)
    x = hidden_layers(columns.joined(config.embedding), config.hidden, config.activation, config.dropout)
    x = layers.Dense(task.output_shape[-1], name="output")(x)
    return columns.model(as_logits(x, task), config.name)
