"""Products of every pair of embeddings between dense layers: a deep learning recommendation model.

Naumov et al., "Deep learning recommendation model for personalization and recommendation systems" (2019).

Shape legend: B batch, F vectors of a sample, D width of each.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from trainer.config.recommendation import DlrmModel
from trainer.data.source import Schema
from trainer.models.columns import Columns
from trainer.models.inputs import as_logits
from trainer.models.mlp import hidden_layers
from trainer.tasks.task import Task


class PairProducts(layers.Layer):
    """The products of every pair of different vectors: [B, F, D] to [B, F (F - 1) / 2]."""

    def call(self, vectors: Any) -> Any:
        """The lower triangle of the matrix of all products, without the diagonal."""
        count = vectors.shape[1]
        products = keras.ops.matmul(vectors, keras.ops.transpose(vectors, (0, 2, 1)))
        rows, columns = np.tril_indices(count, -1)
        return keras.ops.take(keras.ops.reshape(products, (-1, count * count)), rows * count + columns, axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One number a pair."""
        return input_shape[0], input_shape[1] * (input_shape[1] - 1) // 2


def dlrm(config: DlrmModel, schema: Schema, task: Task) -> keras.Model:
    """Categories and numbers to logits: the numbers become one more vector beside the embeddings.

    Raises:
        ValueError: There are fewer than two vectors to multiply.
    """
    columns = Columns(task.input_features)
    # All of one width, or they could not be multiplied.
    vectors = [columns.embedded(name, config.embedding) for name in columns.categories]
    dense = []
    if columns.numbers:
        x = hidden_layers(columns.normalised, config.bottom, config.activation, config.dropout, "bottom_")
        dense = [layers.Dense(config.embedding, activation=config.activation, name="bottom")(x)]
    vectors = dense + vectors
    if len(vectors) < 2:
        raise ValueError(
            f"model.name=dlrm multiplies pairs of vectors, but the data has {len(columns.categories)} categories and "
            f"{len(columns.numbers)} numbers, which make {len(vectors)} vector: set model.name=tabular"
        )
    rows = [layers.Reshape((1, config.embedding), name=f"row_{i}")(vector) for i, vector in enumerate(vectors)]
    products = PairProducts(name="products")(layers.Concatenate(axis=1, name="vectors")(rows))
    x = layers.Concatenate(name="products_and_numbers")([*dense, products]) if dense else products
    x = hidden_layers(x, config.top, config.activation, config.dropout, "top_")
    x = layers.Dense(task.output_shape[-1], name="output")(x)
    return columns.model(as_logits(x, task), config.name)
