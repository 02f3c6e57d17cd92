"""A small convolutional network with batch normalisation."""

import keras


def model(schema, task) -> keras.Model:
    """Two convolutions, each normalised, and dropout before the answer."""
    layers = keras.layers
    x = image = keras.Input((8, 8, 1))
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10)(x))
