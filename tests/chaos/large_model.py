"""The counting model of `counted_samples`, with layers whose gradients are large enough to fill a bucket each."""

import keras

from tests.launch import counted_samples


def model(schema, task) -> keras.Model:
    """The prediction of the small model, and of 200,000 weights beside it."""
    small = counted_samples.model(schema, task)
    x = small.inputs[0]
    hidden = keras.layers.Dense(512, activation="tanh", name="wide")(x)
    hidden = keras.layers.Dense(256, activation="tanh", name="narrower")(hidden)
    answer = keras.layers.Dense(1, name="beside")(hidden)
    return keras.Model(x, keras.layers.Add()([small.outputs[0], keras.ops.pad(answer, ((0, 0), (0, 1)))]))
