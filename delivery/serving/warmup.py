"""What a version is sent before it answers anybody: recorded requests, else made-up ones, in every size of a batch.

Shape legend: B rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from delivery.package.warmup import WARMUP
from delivery.serving.batch_computation import compute
from delivery.serving.batcher import BatchTimes
from delivery.serving.errors import ModelRefused, ServingError
from delivery.serving.loaded_model import DEFAULT_SIGNATURE, LoadedModel
from delivery.serving.signature import Signature, TensorKind
from delivery.serving.tensors import read_inputs

log = logging.getLogger("phalanx.serving")
_REPEATS = 3  # the first call of a size prepares, the later ones tell how long it takes


def warm_up(model: LoadedModel, folder: Path, sizes: Sequence[int], times: BatchTimes, most_bytes: int) -> int:
    """Sends every signature its recorded requests, and batches of every allowed size.

    One that the default signature has answered is kept as `LoadedModel.request`.

    Args:
        model: Loaded from `folder`.
        folder: May hold `assets.extra/tf_serving_warmup_requests`.
        sizes: Of the batcher.
        times: Is told how long each size takes on the default signature.
        most_bytes: That an input of a recorded request may take.

    Returns:
        How many calls that were.

    Raises:
        ModelRefused: A recorded request fails.
    """
    calls = 0
    recorded = _recorded(model, folder, most_bytes)
    for name, signature in model.signatures.items():
        requests = recorded.get(name, [])
        for request in requests:
            _, failure = _timed(signature, request, sizes)
            if failure:
                raise ModelRefused(f"a warm-up request of {folder} to signature {name} fails: {failure}")
            calls += 1
        template = requests[0] if requests else _made_up(signature)
        for size in sizes if signature.is_batched else (1,):
            for _ in range(_REPEATS):
                seconds, failure = _timed(signature, _of_size(template, size, signature), sizes)
                calls += 1
                if failure:
                    break
            if failure:
                # Zeros and empty strings may be no valid input; who wants this signature warm records requests.
                log.warning("made-up warm-up failed", extra={"signature": name, "error": str(failure)})
                break
            times.add(size, seconds)
            if name == DEFAULT_SIGNATURE and model.request is None:
                model.request = _of_size(template, size, signature)
    return calls


def _recorded(model: LoadedModel, folder: Path, most_bytes: int) -> dict[str, list[dict[str, np.ndarray]]]:
    from tensorflow_serving.apis import prediction_log_pb2

    found: dict[str, list[dict[str, np.ndarray]]] = {}
    if not (folder / WARMUP).is_file():
        return found
    try:
        for record in tf.data.TFRecordDataset(str(folder / WARMUP)).as_numpy_iterator():
            log_entry = prediction_log_pb2.PredictionLog.FromString(record)  # type: ignore[attr-defined]
            if log_entry.WhichOneof("log_type") != "predict_log":
                continue
            request = log_entry.predict_log.request
            signature = model.signature(request.model_spec.signature_name)
            inputs = read_inputs(signature, request.inputs, most_bytes)
            found.setdefault(signature.name, []).append(inputs)
    except Exception as error:
        raise ModelRefused(f"the warm-up requests of {folder} cannot be read: {error}") from error
    return found


def _timed(
    signature: Signature, inputs: Mapping[str, np.ndarray], sizes: Sequence[int]
) -> tuple[float, Exception | None]:
    started = time.perf_counter()
    try:
        rows = signature.rows(inputs)
    except ServingError as error:
        return 0.0, error
    (answer,) = compute(signature, [inputs], [rows], sizes)
    if isinstance(answer, ServingError) and answer.code == "INTERNAL" and signature.is_batched:
        # Rows in, another number of rows out: such a signature takes no part in batches, whatever its shapes say.
        signature.is_batched = False
        (answer,) = compute(signature, [inputs], [1], sizes)
    return time.perf_counter() - started, answer if isinstance(answer, Exception) else None


def _of_size(inputs: Mapping[str, np.ndarray], size: int, signature: Signature) -> dict[str, np.ndarray]:
    if not signature.is_batched:
        return dict(inputs)
    return {key: np.repeat(value[:1], size, axis=0) for key, value in inputs.items()}


def _made_up(signature: Signature) -> dict[str, np.ndarray]:
    return {key: _zeros(kind) for key, kind in signature.inputs.items()}


def _zeros(kind: TensorKind) -> np.ndarray:
    shape = tuple(1 if size is None else size for size in kind.shape or ())
    return np.full(shape, b"", object) if kind.dtype == tf.string else np.zeros(shape, kind.array_dtype)
