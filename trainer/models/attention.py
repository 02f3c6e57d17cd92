"""Causal self-attention, and rotary positions.

Shape legend: B batch, T time, D width, H heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.models.static_shape import sample_shape

MASKED = -1e9


@keras.saving.register_keras_serializable("phalanx")
class CausalAttention(keras.layers.Layer):
    """Scaled dot-product attention of each position on itself and those before it (Vaswani et al. 2017).

    Has no weights: it takes queries, keys and values side by side from one dense layer, and leaves the projection of
    the heads to another. It is written for static shapes and two batched products, which XLA turns into few kernels.

    Args:
        num_heads: H.
        rotary: Turn queries and keys by their positions (Su et al., "RoFormer", 2021).
    """

    def __init__(self, num_heads: int, rotary: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.rotary = rotary

    def call(self, qkv: tf.Tensor) -> tf.Tensor:
        """The weighted values of all heads, [B, T, D], for [B, T, 3D]."""
        time, all_widths = sample_shape(qkv)
        width, head_width = all_widths // 3, all_widths // 3 // self.num_heads
        heads = tf.reshape(qkv, [-1, time, 3, self.num_heads, head_width])
        q_BHTE, k_BHTE, v_BHTE = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]))
        if self.rotary:
            q_BHTE, k_BHTE = rotate(q_BHTE), rotate(k_BHTE)
        scores_BHTT = tf.matmul(q_BHTE, k_BHTE, transpose_b=True) * head_width**-0.5
        is_future = np.triu(np.ones([time, time], bool), 1)
        # In float32: a sum over many positions loses too much in 16 bits.
        scores_BHTT = tf.where(is_future, MASKED, tf.cast(scores_BHTT, tf.float32))
        attention_BHTT = tf.cast(tf.nn.softmax(scores_BHTT), v_BHTE.dtype)
        mixed_BTHE = tf.transpose(tf.matmul(attention_BHTT, v_BHTE), [0, 2, 1, 3])
        return tf.reshape(mixed_BTHE, [-1, time, width])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        width = input_shape[-1]
        return (*input_shape[:-1], width and width // 3)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "num_heads": self.num_heads, "rotary": self.rotary}


def rotate(x_BHTE: tf.Tensor, base: float = 10_000.0) -> tf.Tensor:
    """Turns the pairs (e, e + E/2) of each position t by t times their frequency, base**(-2e/E)."""
    _, time, width = sample_shape(x_BHTE)
    frequencies = base ** (-np.arange(0, width, 2) / width)
    angles = np.arange(time)[:, None] * frequencies
    cos, sin = (tf.constant(f(angles), x_BHTE.dtype) for f in (np.cos, np.sin))
    first, second = tf.split(x_BHTE, 2, -1)
    return tf.concat([first * cos - second * sin, second * cos + first * sin], -1)


@keras.saving.register_keras_serializable("phalanx")
class LearnedPositions(keras.layers.Layer):
    """Adds a learned vector to each position."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the vectors, [T, D]."""
        initial = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.add_weight(shape=input_shape[1:], initializer=initial, name="positions")

    def call(self, x_BTD: tf.Tensor) -> tf.Tensor:
        """The sums, [B, T, D]."""
        return x_BTD + self.positions
