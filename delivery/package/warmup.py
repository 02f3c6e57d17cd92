"""Warm-up requests: what a server sends itself before it says that it is ready. Written, and read without trust.

The file is TensorFlow Serving's `assets.extra/tf_serving_warmup_requests`: a TFRecord file of `PredictionLog`.

Shape legend: B batch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from delivery.package.graph_scan import Signature
from delivery.package.refusal import PackageRefused, shown

WARMUP = "assets.extra/tf_serving_warmup_requests"
BATCH_SIZES = (1, 8, 32)
MOST_RECORDS = 1000  # TensorFlow Serving's own limit
_MOST_REQUEST = 4 << 20  # bytes of a request that is written
_MOST_ELEMENTS = 1 << 26  # that a tensor of a request may claim to have
_TENSORS = frozenset({*range(1, 20), 22, 23})  # DataType: numbers, strings and truth values; no resource, no variant


def write_warmup(path: Path, name: str, requests: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    """Writes requests of several batch sizes to every signature.

    Args:
        path: Written; its folder is there.
        name: Of the model.
        requests: What each signature is sent, real samples [B, ...] by input.

    Returns:
        The number of requests.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    written = 0
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, inputs in requests.items():
            most = len(next(iter(inputs.values())))
            for size in sorted({min(size, most) for size in BATCH_SIZES}):
                log = prediction_log_pb2.PredictionLog()  # type: ignore[attr-defined]
                request = log.predict_log.request
                request.model_spec.name, request.model_spec.signature_name = name, signature
                for key, values in inputs.items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(values[:size]))
                content = log.SerializeToString(deterministic=True)
                if size == 1 or len(content) <= _MOST_REQUEST:
                    file.write(content)
                    written += 1
    return written


def check_warmup(content: bytes, signatures: Mapping[str, Signature]) -> int:
    """Makes sure that the file holds nothing but predictions by signatures of the model; returns how many.

    Anything else is refused, above all `SessionRunLog`, which could feed and fetch any tensor of the graph, the path of
    the saver included.

    Raises:
        PackageRefused: It does.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    count = 0
    for record in _records(content):
        count += 1
        if count > MOST_RECORDS:
            raise _refused("size", f"holds more than {MOST_RECORDS} requests")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)  # type: ignore[attr-defined]
        except (DecodeError, RecursionError):
            raise _refused("damaged", f"has a request {count} that cannot be read") from None
        kind = log.WhichOneof("log_type")
        if kind != "predict_log":
            raise _refused("warmup", f"has a request {count} of kind {kind}: only predictions are allowed")
        _check_request(log.predict_log.request, signatures, count)
    return count


def _check_request(request: Any, signatures: Mapping[str, Signature], number: int) -> None:
    name = request.model_spec.signature_name or "serving_default"
    signature = signatures.get(name)
    if signature is None:
        raise _refused("warmup", f"has a request {number} to the signature {shown(name)}, which the model lacks")
    if set(request.inputs) != set(signature.inputs) or not set(request.output_filter) <= set(signature.outputs):
        raise _refused("warmup", f"has a request {number} with other inputs or outputs than those of {shown(name)}")
    for key, tensor in request.inputs.items():
        sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
        if tensor.dtype != signature.inputs[key] or tensor.dtype not in _TENSORS:
            raise _refused("warmup", f"has a request {number} whose input {shown(key)} is of another type")
        if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0 or math.prod(sizes) > _MOST_ELEMENTS:
            raise _refused("warmup", f"has a request {number} whose input {shown(key)} is too large, or of no shape")


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, the bytes, their checksum."""
    place = 0
    while place < len(content):
        header = content[place : place + 12]
        if len(header) < 12 or _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
            raise _refused("damaged", f"is damaged at byte {place}")
        length = struct.unpack("<Q", header[:8])[0]
        end = place + 12 + length
        record, checksum = content[place + 12 : end], content[end : end + 4]
        if len(checksum) < 4 or _masked_crc(record) != struct.unpack("<I", checksum)[0]:
            raise _refused("damaged", f"is damaged at byte {place}")
        yield record
        place = end + 4


def _masked_crc(content: bytes) -> int:
    import google_crc32c

    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _refused(rule: str, sentence: str) -> PackageRefused:
    return PackageRefused(rule, WARMUP, f"{WARMUP} {sentence}")
