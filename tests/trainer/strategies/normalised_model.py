"""A small model with batch normalisation in two branches."""

import keras


def normalised(schema) -> keras.Model:
    """Convolutions of [4, 4, 2]; the branches leave open which of them is computed first."""
    layers = keras.layers
    image = keras.Input((4, 4, 2))
    branches = []
    for filters in (3, 5):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(image)
        branches.append(keras.activations.gelu(layers.BatchNormalization(momentum=0.5)(x)))
    x = layers.Dense(4, use_bias=False)(layers.Concatenate()(branches))
    x = layers.Dropout(0.2)(layers.Flatten()(layers.BatchNormalization(momentum=0.9)(x)))
    return keras.Model(image, layers.Dense(3, dtype="float32")(x))
