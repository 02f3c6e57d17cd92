"""What a served model takes: raw features as an application has them, turned into what the model was trained on.

Shape legend: B batch, H height, W width, C channels, T context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from trainer.data.hashing import hashed, names_of_buckets
from trainer.data.source import Feature

UNKNOWN_CATEGORY = ""
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ServedInput:
    """One input of a signature.

    Attributes:
        spec: What the caller sends, [B, ...].
        decode: From what is sent to the model's feature, in the graph.
        encode: From the model's feature back to what an application would have sent; for the check of an export.
        rounding: Most that a value may change on the way to the raw form and back.
        resources: What the graph of `decode` needs beside it in the SavedModel.
    """

    spec: tf.TensorSpec
    decode: Callable[[tf.Tensor], tf.Tensor]
    encode: Callable[[np.ndarray], np.ndarray]
    rounding: float = 0.0
    resources: tuple[tf.lookup.StaticHashTable, ...] = ()


def tensor_input(name: str, feature: Feature) -> ServedInput:
    """The feature as the model takes it."""
    spec = tf.TensorSpec((None, *feature.shape), feature.dtype, name)
    return ServedInput(spec, lambda sent: sent, lambda values: values.astype(feature.dtype))


def number_input(name: str, feature: Feature, mean: float) -> ServedInput:
    """Numbers of a column, [B, ...]; a missing one is sent as NaN and counts as the mean of the training split."""
    served = tensor_input(name, feature)
    return replace(served, decode=lambda sent: tf.where(tf.math.is_nan(sent), tf.constant(mean, sent.dtype), sent))


def image_input(name: str, feature: Feature) -> ServedInput:
    """Pixels as uint8, 0 to 255, [B, H, W] or [B, H, W, C], for a model that takes [0, 1]."""
    spec = tf.TensorSpec((None, *feature.shape), tf.uint8, name)
    return ServedInput(
        spec,
        lambda sent: tf.cast(sent, feature.dtype) / tf.constant(255, feature.dtype),
        lambda values: np.rint(values * 255).astype(np.uint8),
        rounding=0.5 / 255 + 1e-6,
    )


def category_input(name: str, feature: Feature) -> ServedInput:
    """Names of categories as strings, [B, ...]; a name that training never saw counts as missing."""
    names = feature.vocabulary
    assert names is not None, "only features with a vocabulary come here"
    keys = tf.constant(names, tf.string)
    numbers = tf.range(1, len(names) + 1, dtype=tf.int64)
    # The numbering of the schema: 0 for missing and unknown names, i + 1 for the i-th.
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, numbers), default_value=0)
    known = np.array([UNKNOWN_CATEGORY, *names], object)
    return ServedInput(
        tf.TensorSpec((None, *feature.shape), tf.string, name),
        lambda sent: tf.cast(table.lookup(sent), feature.dtype),
        lambda values: known[values],
        resources=(table,),
    )


def hashed_input(name: str, feature: Feature) -> ServedInput:
    """Names of categories as strings, [B, ...], of which the number is a hash; an empty name is a missing one."""
    buckets, known = feature.hash_buckets, dict(feature.bucket_names or {})
    assert buckets is not None, "only features whose names are hashed come here"

    def encode(values: np.ndarray) -> np.ndarray:
        numbers = set(np.unique(values).tolist())
        known.update(names_of_buckets(numbers - known.keys(), buckets))
        return np.array([known[number] for number in values.ravel().tolist()], object).reshape(values.shape)

    return ServedInput(
        tf.TensorSpec((None, *feature.shape), tf.string, name),
        lambda sent: tf.cast(hashed(sent, buckets), feature.dtype),
        encode,
    )


def token_input(name: str, feature: Feature) -> ServedInput:
    """Tokens [B, t] of any length t up to the context T; filled up behind, which a causal model does not see."""
    context = feature.shape[0]

    def decode(sent: tf.Tensor) -> tf.Tensor:
        length = tf.shape(sent)[1]
        message = f"{name} may hold at most {context} tokens, the context that the model was trained with"
        with tf.control_dependencies([tf.debugging.assert_less_equal(length, context, message)]):
            padded = tf.pad(sent, tf.stack([[0, 0], [0, context - length]]))
        return tf.ensure_shape(padded, (None, context))

    return ServedInput(tf.TensorSpec((None, None), feature.dtype, name), decode, lambda values: values)


def is_image(name: str, feature: Feature, values: np.ndarray) -> bool:
    """Whether a feature holds pixels in [0, 1]: by its shape or name, and by real values of it."""
    looks_so = (len(feature.shape) == 3 and feature.shape[-1] in _CHANNELS) or (
        len(feature.shape) == 2 and name == "image"
    )
    is_float = feature.dtype.startswith("float")
    return looks_so and is_float and bool(values.size) and float(values.min()) >= 0 and float(values.max()) <= 1


def raw_inputs(
    features: Mapping[str, Feature], samples: Mapping[str, np.ndarray], tokens: bool
) -> dict[str, ServedInput]:
    """The raw form of each feature: pixels, names of categories, tokens, numbers.

    Args:
        features: What the model takes.
        samples: Real values of them, [B, ...] each.
        tokens: The features are sequences that may be shorter than the context.
    """
    inputs = {}
    for name, feature in features.items():
        if feature.vocabulary:
            inputs[name] = category_input(name, feature)
        elif feature.hash_buckets:
            inputs[name] = hashed_input(name, feature)
        elif tokens:
            inputs[name] = token_input(name, feature)
        elif is_image(name, feature, samples[name]):
            inputs[name] = image_input(name, feature)
        elif feature.mean is not None and feature.dtype.startswith("float"):
            inputs[name] = number_input(name, feature, feature.mean)
        else:
            inputs[name] = tensor_input(name, feature)
    return inputs
