"""A vision transformer (Dosovitskiy et al., "An image is worth 16x16 words", 2020).

Shape legend: B batch, H height, W width, C channels, P side of a patch, T patches (and the token), D width.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.config.vision_models import VitModel
from trainer.data.source import Schema
from trainer.models.attention import LearnedPositions
from trainer.models.encoder import dropped, encoder_norm, pre_norm_block
from trainer.models.inputs import as_logits
from trainer.models.photographs import normalised, photographs
from trainer.models.static_shape import sample_shape
from trainer.tasks.task import Task


def vit(config: VitModel, schema: Schema, task: Task) -> keras.Model:
    """Images in [0, 1] to logits; each block normalises its input, not its output.

    Raises:
        ValueError: The data is no images, or patches do not divide them.
    """
    inputs, x = photographs(task, config.name, config.input_size)
    height, width = x.shape[1:3]
    if height % config.patch or width % config.patch:
        raise ValueError(
            f"model.patch={config.patch} must divide both sides of the images, {height} x {width}: choose a divisor, "
            f"or set model.input_size={-(-max(height, width) // config.patch) * config.patch}"
        )
    x = Patches(config.patch, name="patches")(normalised(x))
    x = layers.Dense(config.width, name="patch_embedding")(x)
    if config.pooling == "token":
        x = ClassToken(name="class_token")(x)
    x = LearnedPositions(name="position_embedding")(x)
    x = dropped(x, config, "embedding_dropout")
    for i in range(config.layers):
        x = _block(x, config, f"block_{i}")
    x = encoder_norm("final_norm")(x)
    x = x[:, 0] if config.pooling == "token" else layers.GlobalAveragePooling1D(name="mean_of_patches")(x)
    x = layers.Dense(task.output_shape[-1], name="output")(x)
    return keras.Model(inputs, as_logits(x, task), name=config.name)


@keras.saving.register_keras_serializable("phalanx")
class Patches(layers.Layer):
    """Cuts images into patches, each flattened.

    With a dense layer behind it, this is the strided convolution of the paper as one matrix product, which XLA compiles
    well on every processor.

    Args:
        size: P.
    """

    def __init__(self, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size

    def call(self, x_BHWC: tf.Tensor) -> tf.Tensor:
        """The patches row by row, [B, T, P * P * C]."""
        height, width, channels = sample_shape(x_BHWC)
        size = self.size
        rows = tf.reshape(x_BHWC, [-1, height // size, size, width // size, size, channels])
        patches = tf.transpose(rows, [0, 1, 3, 2, 4, 5])
        return tf.reshape(patches, [-1, height // size * (width // size), size * size * channels])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        batch, height, width, channels = input_shape
        assert height and width and channels, "models here have inputs of fixed shape"
        return batch, height // self.size * (width // self.size), self.size**2 * channels

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("phalanx")
class ClassToken(layers.Layer):
    """Puts a learned vector before the patches; the class is read from what the blocks make of it."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the vector, [1, 1, D]."""
        self.token = self.add_weight(shape=(1, 1, input_shape[-1]), initializer="zeros", name="token")

    def call(self, x_BTD: tf.Tensor) -> tf.Tensor:
        """[B, T + 1, D]."""
        token = tf.cast(tf.convert_to_tensor(self.token), x_BTD.dtype)
        return tf.concat([tf.repeat(token, tf.shape(x_BTD)[0], axis=0), x_BTD], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        batch, time, width = input_shape
        return batch, time and time + 1, width


def _block(x_BTD: Any, config: VitModel, name: str) -> Any:
    def attend(y: Any) -> Any:
        attention = layers.MultiHeadAttention(config.heads, config.width // config.heads, name=f"{name}_attention")
        return attention(y, y)

    return pre_norm_block(x_BTD, attend, config, name)
