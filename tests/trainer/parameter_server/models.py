"""Models with embeddings, for trainings whose tables lie on parameter servers."""

import keras


def token_model(schema, tied: bool = False) -> keras.Model:
    """Tokens [B, T] to logits [B, T, V], through two tables; `tied` multiplies by one of them too."""
    feature = next(iter(schema.features.values()))
    size = feature.num_values
    tokens = keras.Input((feature.shape[0] - 1,), dtype=feature.dtype)
    one, two = keras.layers.Embedding(size, 6, name="one"), keras.layers.Embedding(size, 4, name="two")
    x = keras.layers.Concatenate()([one(tokens), two(tokens)])
    x = keras.layers.Dropout(0.2)(keras.layers.Dense(6, activation="gelu")(x))
    logits = keras.layers.Dense(size)(x)
    return keras.Model(tokens, keras.layers.Activation("linear", dtype="float32")(logits))
