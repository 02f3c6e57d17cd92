"""A bidirectional encoder of tokens (Devlin et al., "BERT: pre-training of deep bidirectional transformers", 2018).

As later practice has it, there is no prediction of the next sentence, blocks normalise their input, and a text is
classified by the mean of its tokens.

Shape legend: B batch, T context, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.config.sequence_models import BertModel
from trainer.data.source import Schema
from trainer.data.tokenizer import END_OF_DOCUMENT
from trainer.models.encoder import encoded, encoder_norm
from trainer.models.inputs import as_logits, model_input
from trainer.tasks.task import Task


def bert(config: BertModel, schema: Schema, task: Task) -> keras.Model:
    """Tokens [B, T] to logits [B, T, V] of what is hidden, or to those of the classes of a text, [B, classes].

    Embedding and blocks have the same names for every task, so that `warm_start` takes them from one to another.

    Raises:
        ValueError: The data is no tokens.
    """
    name, feature = next(iter(task.input_features.items()))
    if len(task.input_features) > 1 or len(feature.shape) != 1 or feature.num_values is None:
        raise ValueError(
            f"model.name=bert reads a sequence of tokens, but the model's input is {name!r} of shape "
            f"{list(feature.shape)}: set data.name=text with data.masked or data.classes"
        )
    inputs = model_input(name, feature)
    initial: Any = keras.initializers.RandomNormal(stddev=0.02)  # Keras declares these arguments as strings.
    embedding = layers.ReversibleEmbedding(feature.num_values, config.width, True, initial, name="token_embedding")
    is_end = IsToken(END_OF_DOCUMENT, name="is_end")(inputs)
    x = encoded(embedding(inputs), config, is_end)
    if len(task.output_shape) == 2:  # a token at each position
        x = layers.Dense(config.width, activation="gelu", name="hidden_token")(x)
        x = embedding(encoder_norm("hidden_token_norm")(x), reverse=True)
    else:
        x = layers.Dense(task.output_shape[-1], name="output")(MeanOfRest(name="mean_of_tokens")(x, is_end))
    return keras.Model(inputs, as_logits(x, task), name=config.name)


@keras.saving.register_keras_serializable("phalanx")
class IsToken(layers.Layer):
    """Where a token stands.

    Args:
        token: Its number.
    """

    def __init__(self, token: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.token = token

    def call(self, tokens_BT: tf.Tensor) -> tf.Tensor:
        """Bool [B, T]."""
        return tf.equal(tokens_BT, tf.constant(self.token, tokens_BT.dtype))

    def compute_output_spec(self, tokens_BT: Any) -> Any:
        """The shape and type that `call` gives."""
        return keras.KerasTensor(tokens_BT.shape, "bool")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "token": self.token}


@keras.saving.register_keras_serializable("phalanx")
class MeanOfRest(layers.Layer):
    """The mean over the positions that are not left out; 0 where all are."""

    def call(self, x_BTD: tf.Tensor, is_out_BT: tf.Tensor) -> tf.Tensor:
        """[B, D]."""
        kept_BT1 = tf.expand_dims(tf.cast(tf.logical_not(is_out_BT), x_BTD.dtype), -1)
        return tf.reduce_sum(x_BTD * kept_BT1, 1) / tf.maximum(tf.reduce_sum(kept_BT1, 1), 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        return input_shape[0], input_shape[-1]
