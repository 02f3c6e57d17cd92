from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from delivery.release.sample_scores import score
from trainer.data.source import Feature, Schema

VOCABULARY = 6


class Repeated:
    """The signature of a model that answers each token by the token itself."""

    structured_input_signature = ((), {"tokens": tf.TensorSpec([None, 4], tf.int32, "tokens")})

    def __call__(self, tokens: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": tf.one_hot(tokens, VOCABULARY)}


def scored(samples: dict, schema: Schema) -> list[float]:
    loaded = SimpleNamespace(signatures={"serving_default": Repeated()})
    return score(loaded, "token_accuracy", samples, schema).tolist()


def test_next_tokens_count_within_their_document():
    tokens = np.array([[1, 1, 0, 0, 2], [3, 3, 3, 4, 5]], np.int32)
    whole = Schema({"tokens": Feature((5,), "int32", num_values=VOCABULARY)}, None, 2, VOCABULARY)
    packed = Schema({"tokens": Feature((5,), "int32", num_values=VOCABULARY, separator=0)}, None, 2, VOCABULARY)
    assert scored({"tokens": tokens}, whole) == [2 / 4, 2 / 4]
    assert scored({"tokens": tokens}, packed) == [1 / 2, 2 / 4]


def test_only_hidden_tokens_count():
    tokens = np.array([[1, 2, 3, 4], [5, 5, 1, 1], [1, 1, 1, 1]], np.int32)
    originals = np.array([[1, -1, -1, 2], [-1, 5, -1, -1], [-1, -1, -1, -1]], np.int32)
    features = {"tokens": Feature((4,), "int32", num_values=VOCABULARY), "originals": Feature((4,), "int32")}
    schema = Schema(features, "originals", 3, VOCABULARY)
    assert scored({"tokens": tokens, "originals": originals}, schema) == [0.5, 1.0, 0.0]
