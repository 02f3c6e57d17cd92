"""A decoder-only transformer (Radford et al., "Language models are unsupervised multitask learners", 2019).

Shape legend: B batch, T context, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from trainer.config.model import TransformerLmModel
from trainer.data.source import Schema
from trainer.models.attention import CausalAttention, LearnedPositions
from trainer.models.documents import DocumentOfToken, PositionInDocument
from trainer.models.experts import Experts
from trainer.models.inputs import as_logits, model_input
from trainer.tasks.task import Task


def transformer_lm(config: TransformerLmModel, schema: Schema, task: Task) -> keras.Model:
    """Tokens [B, T] to logits [B, T, V]; each block normalises its input, not its output.

    Raises:
        ValueError: The task is not to predict tokens from tokens.
    """
    name, feature = next(iter(task.input_features.items()))
    if len(task.input_features) > 1 or len(feature.shape) != 1 or len(task.output_shape) != 2:
        raise ValueError(
            "model.name=transformer_lm predicts a token at every position of a token sequence, but the model's input "
            f"is {name!r} of shape {list(feature.shape)}: set task.name=language_modelling"
        )
    vocabulary = task.output_shape[-1]
    inputs = model_input(name, feature)
    embedding = layers.ReversibleEmbedding(
        vocabulary, config.width, config.tie_embedding, _initial(), name="token_embedding"
    )
    x = embedding(inputs)
    documents = None if feature.separator is None else DocumentOfToken(feature.separator, name="document")(inputs)
    if config.positions == "learned":
        places = None if documents is None else PositionInDocument(name="position_in_document")(documents)
        x = LearnedPositions(name="position_embedding")(x, places)
    x = _dropped(x, config, "embedding_dropout")
    for i in range(config.layers):
        x = _block(x, documents, config, f"block_{i}")
    x = _norm("final_norm")(x)
    return keras.Model(inputs, as_logits(embedding(x, reverse=True)), name=config.name)


def _block(x_BTD: Any, documents_BT: Any, config: TransformerLmModel, name: str) -> Any:
    # What the blocks add to x shrinks with their number, so that x starts with the same size in any depth.
    last = _initial((2 * config.layers) ** -0.5)
    rotary = config.positions == "rotary"
    y = _norm(f"{name}_attention_norm")(x_BTD)
    kv_heads = config.kv_heads or config.heads
    widths = config.width + 2 * kv_heads * (config.width // config.heads)
    y = layers.Dense(widths, kernel_initializer=_initial(), name=f"{name}_queries_keys_values")(y)
    y = CausalAttention(config.heads, rotary, kv_heads, name=f"{name}_attention")(y, documents_BT)
    y = layers.Dense(config.width, kernel_initializer=last, name=f"{name}_attention_output")(y)
    x_BTD = layers.Add(name=f"{name}_attention_add")([x_BTD, _dropped(y, config, f"{name}_attention_dropout")])
    y = _norm(f"{name}_feed_forward_norm")(x_BTD)
    hidden = config.feed_forward or 4 * config.width
    if config.experts is not None:
        losses = config.expert_balance, config.router_z
        scale = (2 * config.layers) ** -0.5
        y = Experts(config.experts, config.experts_per_token, hidden, *losses, scale, name=f"{name}_experts")(y)
        return layers.Add(name=f"{name}_feed_forward_add")([x_BTD, _dropped(y, config, f"{name}_feed_forward_dropout")])
    y = layers.Dense(hidden, kernel_initializer=_initial(), name=f"{name}_feed_forward_hidden")(y)
    y = layers.Activation(keras.activations.silu, name=f"{name}_activation")(y)
    y = layers.Dense(config.width, kernel_initializer=last, name=f"{name}_feed_forward_output")(y)
    return layers.Add(name=f"{name}_feed_forward_add")([x_BTD, _dropped(y, config, f"{name}_feed_forward_dropout")])


def block_layers(model: keras.Model, number: int) -> dict[str, Any]:
    """The layers of a block of a built model that compute something, by their names without the block's."""
    names = ["attention_norm", "queries_keys_values", "attention", "attention_output"]
    names += ["feed_forward_norm", "feed_forward_hidden", "activation", "feed_forward_output", "experts"]
    found = {layer.name: layer for layer in model.layers}
    return {name: found[f"block_{number}_{name}"] for name in names if f"block_{number}_{name}" in found}


def feed_forward(block: dict[str, Any], x_BTD: Any) -> Any:
    """What the second half of a block adds to x, without dropout."""
    y = block["feed_forward_norm"](x_BTD)
    if "experts" in block:
        return block["experts"](y)
    y = block["feed_forward_hidden"](y)
    return block["feed_forward_output"](block["activation"](y))


def _dropped(x: Any, config: TransformerLmModel, name: str) -> Any:
    return layers.Dropout(config.dropout, name=name)(x) if config.dropout else x


def _norm(name: str) -> keras.layers.Layer:
    return layers.LayerNormalization(epsilon=1e-5, name=name)


def _initial(scale: float = 1.0) -> Any:  # Keras declares its initializer arguments as strings.
    return keras.initializers.RandomNormal(stddev=0.02 * scale)
