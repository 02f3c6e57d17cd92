"""Max pooling that is fast with XLA and without.

Shape legend: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # how TensorFlow's own operations ask whether XLA compiles them

from trainer.models.static_shape import sample_shape


@keras.saving.register_keras_serializable("phalanx")
class HalvingMaxPool(keras.layers.Layer):
    """2x2 max pooling with stride 2; an odd last row or column is left out, as in `keras.layers.MaxPooling2D`.

    XLA on a CPU computes the gradient of a windowed maximum element by element. As a maximum over two axes of length
    two, which is the same thing here, a training step of a small CNN takes half the time; without XLA it would take
    twice as long. Equal maxima then share the gradient, where a windowed maximum gives it to the first.
    """

    def call(self, x_BHWC: tf.Tensor) -> tf.Tensor:
        """The maxima, [B, H // 2, W // 2, C]."""
        if not control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
            return tf.nn.max_pool2d(x_BHWC, 2, 2, "VALID")
        height, width, channels = sample_shape(x_BHWC)
        even = x_BHWC[:, : height // 2 * 2, : width // 2 * 2]
        windows = tf.reshape(even, [-1, height // 2, 2, width // 2, 2, channels])
        return tf.reduce_max(windows, [2, 4])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape that `call` gives."""
        batch, height, width, channels = input_shape
        return batch, height and height // 2, width and width // 2, channels
