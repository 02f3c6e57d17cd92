"""The blocks of a bidirectional encoder (Vaswani et al. 2017), which normalise their input.

Shape legend: B batch, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from trainer.config.sequence_models import EncoderModel
from trainer.config.vision_models import VitModel
from trainer.models.attention import LearnedPositions, SelfAttention


def encoded(x_BTD: Any, config: EncoderModel, is_hidden_BT: Any = None) -> Any:
    """What the encoder makes of a sequence, [B, T, D]: learned positions, blocks, a last normalisation.

    Args:
        x_BTD: The embedded sequence.
        config: Number and size of the blocks.
        is_hidden_BT: Positions that nobody attends to, bool; None: there are none.
    """
    x_BTD = LearnedPositions(name="position_embedding")(x_BTD)
    x_BTD = dropped(x_BTD, config, "embedding_dropout")
    for i in range(config.layers):
        x_BTD = _block(x_BTD, config, f"block_{i}", is_hidden_BT)
    return encoder_norm("final_norm")(x_BTD)


def encoder_norm(name: str) -> keras.layers.Layer:
    """A layer normalisation as the blocks have them."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)


def _block(x_BTD: Any, config: EncoderModel, name: str, is_hidden_BT: Any) -> Any:
    def attend(y: Any) -> Any:
        y = layers.Dense(3 * config.width, name=f"{name}_queries_keys_values")(y)
        y = SelfAttention(config.heads, name=f"{name}_attention")(y, is_hidden_BT)
        return layers.Dense(config.width, name=f"{name}_attention_output")(y)

    return pre_norm_block(x_BTD, attend, config, name)


def pre_norm_block(x_BTD: Any, attend: Callable[[Any], Any], config: EncoderModel | VitModel, name: str) -> Any:
    """Attention and a feed-forward network, [B, T, D], each of whose inputs is normalised and whose outputs are added.

    Args:
        x_BTD: What comes in.
        attend: The attention, of what is normalised.
        config: Its width, the feed-forward network's and the dropout.
        name: Before the names of the layers.
    """
    y = attend(encoder_norm(f"{name}_attention_norm")(x_BTD))
    x_BTD = layers.Add(name=f"{name}_attention_add")([x_BTD, dropped(y, config, f"{name}_attention_dropout")])
    y = encoder_norm(f"{name}_feed_forward_norm")(x_BTD)
    y = layers.Dense(config.feed_forward or 4 * config.width, activation="gelu", name=f"{name}_feed_forward_hidden")(y)
    y = layers.Dense(config.width, name=f"{name}_feed_forward_output")(y)
    return layers.Add(name=f"{name}_feed_forward_add")([x_BTD, dropped(y, config, f"{name}_feed_forward_dropout")])


def dropped(x: Any, config: EncoderModel | VitModel, name: str) -> Any:
    """What dropout leaves, if the config has any."""
    return layers.Dropout(config.dropout, name=name)(x) if config.dropout else x
