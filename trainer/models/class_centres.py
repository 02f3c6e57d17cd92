"""Embeddings on a sphere, and how near each class's centres are to them.

Deng et al., "ArcFace: additive angular margin loss for deep face recognition" (2019); several centres for a class: Deng
et al., "Sub-center ArcFace" (2020). The margin itself is in the loss (`trainer.tasks.verification`), which knows the
classes of the samples.

Shape legend: B batch, D width of an embedding, C classes, K centres of a class.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers
from keras.src.models.functional import Functional

from trainer.models.inputs import model_input
from trainer.tasks.task import Task

EMBEDDING = "embedding"


@keras.saving.register_keras_serializable("phalanx")
class ClassCentres(layers.Layer):
    """Cosines between unit vectors and the nearest centre of each class.

    Args:
        num_classes: C.
        sub_centres: K.
    """

    def __init__(self, num_classes: int, sub_centres: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.sub_centres = sub_centres

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the centres, [D, K C]: the first centre of all classes, then the second one of all."""
        shape = (input_shape[-1], self.sub_centres * self.num_classes)
        self.centres = self.add_weight(shape=shape, initializer="glorot_normal", name="centres")

    def call(self, x_BD: tf.Tensor) -> tf.Tensor:
        """The cosines, [B, C]."""
        cosines = tf.matmul(x_BD, tf.math.l2_normalize(tf.convert_to_tensor(self.centres), 0))
        if self.sub_centres == 1:
            return cosines
        return tf.reduce_max(tf.reshape(cosines, [-1, self.sub_centres, self.num_classes]), 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        return input_shape[0], self.num_classes

    def get_config(self) -> dict[str, Any]:
        """The arguments of the layer."""
        return {**super().get_config(), "num_classes": self.num_classes, "sub_centres": self.sub_centres}


def with_class_centres(model: keras.Model, task: Task, num_classes: int, sub_centres: int) -> keras.Model:
    """A model whose [B, D] become unit vectors, with the cosines of the classes beside them: [B, D + C], in float32.

    Args:
        model: Ends in [B, D].
        task: Names the inputs.
        num_classes: C.
        sub_centres: Of each class.
    """
    if isinstance(model, Functional):
        inputs, x = model.inputs, model.output
    else:  # one of the user's own, which has no graph of layers
        named = {name: model_input(name, feature) for name, feature in task.input_features.items()}
        inputs = list(named.values())
        x = model(named if len(named) > 1 else inputs[0])
    embedding = layers.UnitNormalization(dtype="float32", name=EMBEDDING)(x)
    cosines = ClassCentres(num_classes, sub_centres, dtype="float32", name="class_centres")(embedding)
    outputs = layers.Concatenate(dtype="float32", name="embedding_and_cosines")([embedding, cosines])
    named_inputs = {one.name: one for one in inputs}
    return keras.Model(named_inputs if len(named_inputs) > 1 else inputs[0], outputs, name=model.name)


def without_class_centres(model: keras.Model) -> keras.Model:
    """The part of such a model that gives the embeddings, [B, D]; the variables are the same ones."""
    inputs = {one.name: one for one in model.inputs}
    only = next(iter(inputs.values()))
    return keras.Model(inputs if len(inputs) > 1 else only, model.get_layer(EMBEDDING).output, name=model.name)
