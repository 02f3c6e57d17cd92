"""Models that a TPU refuses, each for one reason."""

import keras
import tensorflow as tf


class InPython(keras.layers.Layer):
    """Doubles its input in Python."""

    def call(self, x):
        return tf.ensure_shape(tf.py_function(lambda v: v * 2, [x], tf.float32), x.shape)


class ThroughText(keras.layers.Layer):
    """Writes numbers as text and reads them again."""

    def call(self, x):
        return tf.strings.to_number(tf.strings.as_string(x)) * x


class InDoublePrecision(keras.layers.Layer):
    """A Fourier transform of complex128."""

    def call(self, x):
        return tf.cast(tf.math.real(tf.signal.ifft(tf.signal.fft(tf.cast(x, tf.complex128)))), tf.float32)


LAYERS = {"python": InPython, "text": ThroughText, "double": InDoublePrecision}


def build(kind, schema):
    """A small classifier of images with one such layer, called "odd"."""
    image = keras.Input(schema.features["image"].shape)
    x = keras.layers.Dense(16, activation="relu", name="hidden")(keras.layers.Flatten()(image))
    x = LAYERS[kind](name="odd")(x)
    return keras.Model(image, keras.layers.Dense(schema.num_classes, name="logits")(x))
