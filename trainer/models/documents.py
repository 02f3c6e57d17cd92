"""Which document of a window each token belongs to, and how far into it; for windows that hold several.

Shape legend: B batch, T tokens.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("phalanx")
class DocumentOfToken(keras.layers.Layer):
    """Numbers the documents of a window: a token's is the number of ends of documents before it.

    Args:
        separator: The token that ends a document, and belongs to it.
    """

    def __init__(self, separator: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.separator = separator

    def call(self, tokens_BT: tf.Tensor) -> tf.Tensor:
        """Int32 [B, T]."""
        is_end = tf.cast(tf.equal(tokens_BT, tf.constant(self.separator, tokens_BT.dtype)), tf.int32)
        return tf.cumsum(is_end, axis=1, exclusive=True)

    def compute_output_spec(self, tokens_BT: Any) -> Any:
        """The shape and type that `call` gives."""
        return keras.KerasTensor(tokens_BT.shape, "int32")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "separator": self.separator}


@keras.saving.register_keras_serializable("phalanx")
class PositionInDocument(keras.layers.Layer):
    """Counts the tokens of the same document before each one."""

    def call(self, documents_BT: tf.Tensor) -> tf.Tensor:
        """Int32 [B, T]."""
        place = tf.range(documents_BT.shape[1])
        is_before = (place[None, :] < place[:, None]) & (documents_BT[:, :, None] == documents_BT[:, None, :])
        return tf.reduce_sum(tf.cast(is_before, tf.int32), -1)

    def compute_output_spec(self, documents_BT: Any) -> Any:
        """The shape and type that `call` gives."""
        return keras.KerasTensor(documents_BT.shape, "int32")
