"""The blocks of a bidirectional encoder (Vaswani et al. 2017), which normalise their input.

Shape legend: B batch, T positions, D width.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.config.sequence_models import EncoderModel
from trainer.models.attention import LearnedPositions, SelfAttention


def encoded(x_BTD: Any, config: EncoderModel, is_hidden_BT: Any = None) -> Any:
    """What the encoder makes of a sequence, [B, T, D]: learned positions, blocks, a last normalisation.

    Args:
        x_BTD: The embedded sequence.
        config: Number and size of the blocks.
        is_hidden_BT: Positions that nobody attends to, bool; None: there are none.
    """
    x_BTD = LearnedPositions(name="position_embedding")(x_BTD)
    x_BTD = _dropped(x_BTD, config, "embedding_dropout")
    for i in range(config.layers):
        x_BTD = _block(x_BTD, config, f"block_{i}", is_hidden_BT)
    return encoder_norm("final_norm")(x_BTD)


def encoder_norm(name: str) -> keras.layers.Layer:
    """A layer normalisation as the blocks have them."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)


def _block(x_BTD: Any, config: EncoderModel, name: str, is_hidden_BT: Any) -> Any:
    y = encoder_norm(f"{name}_attention_norm")(x_BTD)
    y = layers.Dense(3 * config.width, name=f"{name}_queries_keys_values")(y)
    y = SelfAttention(config.heads, name=f"{name}_attention")(y, is_hidden_BT)
    y = layers.Dense(config.width, name=f"{name}_attention_output")(y)
    x_BTD = layers.Add(name=f"{name}_attention_add")([x_BTD, _dropped(y, config, f"{name}_attention_dropout")])
    y = encoder_norm(f"{name}_feed_forward_norm")(x_BTD)
    y = layers.Dense(config.feed_forward or 4 * config.width, activation="gelu", name=f"{name}_feed_forward_hidden")(y)
    y = layers.Dense(config.width, name=f"{name}_feed_forward_output")(y)
    return layers.Add(name=f"{name}_feed_forward_add")([x_BTD, _dropped(y, config, f"{name}_feed_forward_dropout")])


def _dropped(x: Any, config: EncoderModel, name: str) -> Any:
    return layers.Dropout(config.dropout, name=name)(x) if config.dropout else x
