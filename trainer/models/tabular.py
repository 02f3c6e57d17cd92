"""Dense layers on columns of a table."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.config.model import TabularModel
from trainer.data.source import Feature, Schema
from trainer.models.inputs import as_logits, is_category, model_input, num_categories
from trainer.models.mlp import hidden_layers
from trainer.tasks.task import Task


def tabular(config: TabularModel, schema: Schema, task: Task) -> keras.Model:
    """Embeddings of the categories beside the normalised numbers, then dense layers.

    Categories come as numbers, since a look-up of strings cannot be compiled; `trainer.models.serving` puts the look-up
    in front of an exported model.
    """
    features = task.input_features
    inputs = {name: model_input(name, feature) for name, feature in features.items()}
    categories = [
        _embedded(name, features[name], inputs[name], config) for name in features if is_category(features[name])
    ]
    numbers = [name for name in features if not is_category(features[name])]
    columns = categories + ([_normalised({n: features[n] for n in numbers}, inputs)] if numbers else [])
    x = layers.Concatenate(name="columns")(columns) if len(columns) > 1 else columns[0]
    x = hidden_layers(x, config.hidden, config.activation, config.dropout)
    x = layers.Dense(task.output_shape[-1], name="output")(x)
    return keras.Model(inputs if len(inputs) > 1 else next(iter(inputs.values())), as_logits(x), name=config.name)


def _embedded(name: str, feature: Feature, x: Any, config: TabularModel) -> Any:
    size = num_categories(feature)
    # Two categories need no more than one number, three no more than two.
    x = layers.Embedding(size, min(config.embedding, max(1, size - 1)), name=f"embed_{name}")(x)
    return layers.Flatten(name=f"flatten_{name}")(x)


def _normalised(features: dict[str, Feature], inputs: dict[str, Any]) -> Any:
    columns, means, variances = [], [], []
    for name, feature in features.items():
        # In float32 until the scale is small: a year in 16 bits is as good as any other.
        columns.append(layers.Reshape((-1,), dtype="float32", name=f"column_{name}")(inputs[name]))
        means += [feature.mean or 0.0] * columns[-1].shape[-1]
        variances += [(feature.std or 1.0) ** 2] * columns[-1].shape[-1]
    x = layers.Concatenate(dtype="float32", name="numbers")(columns) if len(columns) > 1 else columns[0]
    return layers.Normalization(mean=means, variance=variances, dtype="float32", name="normalise")(x)
