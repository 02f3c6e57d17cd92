"""Self-attention, causal and not, and positions.

Shape legend: B batch, T time, D width, H query heads, K key and value heads, G = H / K query heads that share a key, E
width of a head.
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

    With fewer key and value heads than query heads, neighbouring query heads share one (Ainslie et al., "GQA: training
    generalized multi-query transformer models", 2023).

    Args:
        num_heads: H.
        rotary: Turn queries and keys by their positions (Su et al., "RoFormer", 2021).
        kv_heads: K, a divisor of H; None: H.
    """

    def __init__(self, num_heads: int, rotary: bool = False, kv_heads: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.rotary = rotary
        self.kv_heads = kv_heads or num_heads

    def call(self, qkv: tf.Tensor, documents_BT: tf.Tensor | None = None) -> tf.Tensor:
        """The weighted values of all heads, [B, T, D], for queries, keys and values, [B, T, (H + 2K) E].

        Where the documents of the positions are given, each position attends to those of its own. Rotary positions
        need not begin again with a document: they count by their distance alone.
        """
        time, _ = sample_shape(qkv)
        q_BHTE, k_BKTE, v_BKTE = self.heads(qkv)
        if self.rotary:
            q_BHTE, k_BKTE = rotate(q_BHTE), rotate(k_BKTE)
        is_masked: Any = np.triu(np.ones([time, time], bool), 1)
        if documents_BT is not None:
            is_masked |= documents_BT[:, None, :, None] != documents_BT[:, None, None, :]
        return attend(q_BHTE, k_BKTE, v_BKTE, is_masked)

    def heads(self, qkv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As in `split_heads`."""
        return split_heads(qkv, self.num_heads, self.kv_heads)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        width = input_shape[-1]
        return (*input_shape[:-1], width and width // (self.num_heads + 2 * self.kv_heads) * self.num_heads)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        arguments = {"num_heads": self.num_heads, "rotary": self.rotary, "kv_heads": self.kv_heads}
        return {**super().get_config(), **arguments}


@keras.saving.register_keras_serializable("phalanx")
class SelfAttention(keras.layers.Layer):
    """Scaled dot-product attention of each position on all of them (Vaswani et al. 2017).

    Like `CausalAttention` it has no weights.

    Args:
        num_heads: H.
    """

    def __init__(self, num_heads: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def call(self, qkv: tf.Tensor, is_hidden_BT: tf.Tensor | None = None) -> tf.Tensor:
        """The weighted values of all heads, [B, T, D], for [B, T, 3D]; nobody attends to a hidden position."""
        is_masked = None if is_hidden_BT is None else is_hidden_BT[:, None, None, :]
        return attend(*split_heads(qkv, self.num_heads, self.num_heads), is_masked)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        width = input_shape[-1]
        return (*input_shape[:-1], width and width // 3)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "num_heads": self.num_heads}


def attend(q_BHSE: tf.Tensor, k_BKTE: tf.Tensor, v_BKTE: tf.Tensor, is_masked: Any) -> tf.Tensor:
    """The weighted values of all heads, [B, S, H E].

    Args:
        q_BHSE: Queries of S positions.
        k_BKTE: Keys of T positions; K divides H, and query heads that follow each other share one.
        v_BKTE: Their values.
        is_masked: What the queries must not see, bool [..., S, T], of at most four dimensions; None: nothing.
    """
    heads, queries, head_width = sample_shape(q_BHSE)
    kv_heads, time, _ = sample_shape(k_BKTE)
    if kv_heads < heads:  # the queries of a group side by side, so that there still are two batched products
        q_BHSE = tf.reshape(q_BHSE, [-1, kv_heads, heads // kv_heads * queries, head_width])
    scores = tf.matmul(q_BHSE, k_BKTE, transpose_b=True) * head_width**-0.5
    scores_BHST = tf.reshape(scores, [-1, heads, queries, time]) if kv_heads < heads else scores
    # In float32: a sum over many positions loses too much in 16 bits.
    scores_BHST = tf.cast(scores_BHST, tf.float32)
    if is_masked is not None:
        scores_BHST = tf.where(is_masked, MASKED, scores_BHST)
    attention_BHST = tf.cast(tf.nn.softmax(scores_BHST), v_BKTE.dtype)
    if kv_heads < heads:
        attention_BHST = tf.reshape(attention_BHST, [-1, kv_heads, heads // kv_heads * queries, time])
    mixed = tf.matmul(attention_BHST, v_BKTE)
    mixed_BHSE = tf.reshape(mixed, [-1, heads, queries, head_width]) if kv_heads < heads else mixed
    return tf.reshape(tf.transpose(mixed_BHSE, [0, 2, 1, 3]), [-1, queries, heads * head_width])


def split_heads(qkv: tf.Tensor, num_heads: int, kv_heads: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Queries [B, H, T, E], and keys and values [B, K, T, E], from [B, T, (H + 2K) E]."""
    time, all_widths = sample_shape(qkv)
    head_width = all_widths // (num_heads + 2 * kv_heads)
    if kv_heads == num_heads:  # three equal parts, which XLA cuts apart without a copy of each
        heads = tf.reshape(qkv, [-1, time, 3, num_heads, head_width])
        q_BHTE, k_BHTE, v_BHTE = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]))
        return q_BHTE, k_BHTE, v_BHTE
    heads = tf.reshape(qkv, [-1, time, num_heads + 2 * kv_heads, head_width])
    q_BHTE, k_BKTE, v_BKTE = tf.split(tf.transpose(heads, [0, 2, 1, 3]), [num_heads, kv_heads, kv_heads], axis=1)
    return q_BHTE, k_BKTE, v_BKTE


def rotate(x_BHTE: tf.Tensor, base: float = 10_000.0) -> tf.Tensor:
    """Turns the pairs (e, e + E/2) of each position t by t times their frequency, base**(-2e/E)."""
    _, time, width = sample_shape(x_BHTE)
    cos_TE, sin_TE = (tf.constant(table, x_BHTE.dtype) for table in rotation(time, width, base))
    return turn(x_BHTE, cos_TE, sin_TE)


def rotation(time: int, width: int, base: float = 10_000.0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the angles that each position turns each pair by, float64 [T, E/2] each."""
    frequencies = base ** (-np.arange(0, width, 2) / width)
    angles = np.arange(time)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def turn(x: tf.Tensor, cos: tf.Tensor, sin: tf.Tensor) -> tf.Tensor:
    """Turns the pairs (e, e + E/2) of x, [..., E], by angles whose cosines and sines are [..., E/2]."""
    first, second = tf.split(x, 2, -1)
    return tf.concat([first * cos - second * sin, second * cos + first * sin], -1)


@keras.saving.register_keras_serializable("phalanx")
class LearnedPositions(keras.layers.Layer):
    """Adds a learned vector to each position."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the vectors, [T, D]."""
        initial = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.add_weight(shape=input_shape[1:], initializer=initial, name="positions")

    def call(self, x_BTD: tf.Tensor, places_BT: tf.Tensor | None = None) -> tf.Tensor:
        """The sums, [B, T, D]; each place counts as that number where numbers are given."""
        if places_BT is None:
            return x_BTD + self.positions
        return x_BTD + tf.gather(tf.cast(tf.convert_to_tensor(self.positions), x_BTD.dtype), places_BT)
