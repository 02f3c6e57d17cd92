"""Serialised tf.train.Example to arrays, with the reason where one does not fit the config.

A batch is parsed by one TensorFlow operation. Only when that fails is each record looked at on its own.

Shape legend: B batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from trainer.config.data_streams import RecordFeature

_LISTS = {"integer": "int64_list", "float": "float_list", "image": "bytes_list", "raw": "bytes_list"}
_TYPES = {"integer": tf.int64, "float": tf.float32, "image": tf.string, "raw": tf.string}
# TensorFlow quotes the record in the message of its error, and fails to make the error when that is no UTF-8.
_UNPARSED = (tf.errors.InvalidArgumentError, UnicodeDecodeError)


class ExampleFault(ValueError):
    """A record does not hold what the config declares. The message is the rule that it breaks."""


class ExampleParser:
    """Parses the features that the config declares; images stay encoded.

    Args:
        features: What a record holds, by the name to give it.
    """

    def __init__(self, features: Mapping[str, RecordFeature]):
        self._features = dict(features)
        self._specs = {
            feature.key or name: tf.io.FixedLenFeature(_stored_shape(feature), _TYPES[feature.kind])
            for name, feature in self._features.items()
        }

    def parse(self, payloads: Sequence[bytes]) -> list[dict[str, np.ndarray | bytes] | ExampleFault]:
        """Parses records: for each its arrays, or the rule that it breaks."""
        if not payloads:
            return []
        try:
            columns = self._parse_all(payloads)
        except _UNPARSED:
            if len(payloads) == 1:
                return [self._fault(payloads[0])]
            return [self.parse([payload])[0] for payload in payloads]
        return [self._sample({key: values[row] for key, values in columns.items()}) for row in range(len(payloads))]

    def _parse_all(self, payloads: Sequence[bytes]) -> dict[str, np.ndarray]:
        with tf.device("CPU:0"):
            parsed = tf.io.parse_example(tf.constant(payloads, tf.string), self._specs)
        return {key: values.numpy() for key, values in parsed.items()}

    def _sample(self, stored: Mapping[str, Any]) -> dict[str, np.ndarray | bytes] | ExampleFault:
        sample = {}
        for name, feature in self._features.items():
            value = stored[feature.key or name]
            try:
                if feature.kind == "raw":
                    value = _raw(value, feature)
                elif feature.kind == "integer":
                    value = value + feature.offset
            except ExampleFault as fault:
                return ExampleFault(f"feature {feature.key or name!r}: {fault}")
            sample[name] = value
        return sample

    def _fault(self, payload: bytes) -> ExampleFault:
        try:
            held = tf.train.Example.FromString(payload).features.feature
        except DecodeError:
            return ExampleFault("it is not a serialised tf.train.Example")
        for name, feature in self._features.items():
            key = feature.key or name
            if key not in held:
                return ExampleFault(f"it has no feature {key!r}; it has {', '.join(map(repr, sorted(held))) or 'none'}")
            found, declared = held[key].WhichOneof("kind"), _LISTS[feature.kind]
            if found != declared:
                return ExampleFault(f"feature {key!r} is {found or 'empty'}, where {feature.kind!r} needs {declared}")
            count, expected = len(getattr(held[key], declared).value), int(np.prod(_stored_shape(feature)))
            if count != expected:
                return ExampleFault(f"feature {key!r} holds {count} value(s), where the config declares {expected}")
        return ExampleFault("TensorFlow cannot parse it")


def _stored_shape(feature: RecordFeature) -> tuple[int, ...]:
    return feature.shape if feature.kind in ("integer", "float") else ()


def _raw(data: bytes, feature: RecordFeature) -> np.ndarray:
    dtype = np.dtype(feature.dtype).newbyteorder("<")
    expected = int(np.prod(feature.shape)) * dtype.itemsize
    if len(data) != expected:
        raise ExampleFault(f"it is {len(data)} bytes long, where {feature.dtype} {list(feature.shape)} has {expected}")
    return np.frombuffer(data, dtype).reshape(feature.shape)
