"""What a version scores on each held-out sample; more is better.

Shape legend: B batch, C classes, L labels, T context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from delivery.release.gates_file import GatesRefused, MetricName
from trainer.data.masking import NOT_PREDICTED
from trainer.data.source import Schema, Source

_CHUNK = 250


def _accuracy(answers: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    return (answers["classes"] == target).astype(np.float64)


def _log_loss(answers: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    chosen = np.take_along_axis(answers["probabilities"].astype(np.float64), target[:, None].astype(np.int64), 1)[:, 0]
    return np.log(np.maximum(chosen, 1e-12))


def _squared_error(answers: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    return -np.square(_errors(answers, target)).mean(1)


def _absolute_error(answers: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    return -np.abs(_errors(answers, target)).mean(1)


def _errors(answers: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    values = answers["values"].astype(np.float64)
    return values.reshape(len(target), -1) - target.reshape(len(target), -1)


def _label_accuracy(answers: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    return ((answers["probabilities"] >= 0.5) == (target > 0.5)).mean(1)


def _token_accuracy(answers: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    is_predicted = target != NOT_PREDICTED
    is_hit = (answers["logits"].argmax(-1) == target) & is_predicted
    return is_hit.sum(1) / np.maximum(is_predicted.sum(1), 1)


_SCORES: dict[MetricName, Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "log_loss": _log_loss,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "label_accuracy": _label_accuracy,
    "token_accuracy": _token_accuracy,
}
IS_ERROR = frozenset({"log_loss", "squared_error", "absolute_error"})
"""Metrics of which less is better; their scores are negative."""


def read_held_out(source: Source, most: int) -> dict[str, np.ndarray]:
    """Samples from all over the held-out split, [B, ...] each, those that reading leaves out not among them."""
    total = source.schema.num_samples
    index = np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))
    parts = [source.read(tf.constant(index[place : place + _CHUNK])) for place in range(0, len(index), _CHUNK)]
    samples = {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}
    if "sample_weight" in samples:
        is_kept = samples.pop("sample_weight") > 0
        samples = {name: values[is_kept] for name, values in samples.items()}
    return samples


def score(loaded: Any, metric: MetricName, samples: Mapping[str, np.ndarray], schema: Schema) -> np.ndarray:
    """The score of each sample, float64 [B].

    Args:
        loaded: The SavedModel of a verified package.
        metric: What is counted.
        samples: The held-out samples as the source gives them.
        schema: Names the feature to predict; none: the next token, of the same document where a sample holds several.

    Raises:
        GatesRefused: The model and the data, or the metric, do not fit together.
    """
    name = next((name for name in sorted(loaded.signatures) if name.endswith("_tensors")), "serving_default")
    signature = loaded.signatures[name]
    features, wanted = dict(samples), samples.get(schema.target or "")
    if wanted is None:
        tokens, wanted = samples["tokens"][:, :-1], samples["tokens"][:, 1:]
        features = {"tokens": tokens}
        separator = schema.features["tokens"].separator
        if separator is not None:
            wanted = np.where(tokens == separator, NOT_PREDICTED, wanted)
    inputs = signature.structured_input_signature[1]
    if missing := sorted(set(inputs) - set(features)):
        raise GatesRefused(f"the data has no feature {missing[0]}, which the model takes: name its data under data")
    for key, spec in inputs.items():
        if not spec.shape.is_compatible_with(features[key].shape):
            raise GatesRefused(
                f"the data's {key} has shape {list(features[key].shape[1:])} where the model takes "
                f"{spec.shape.as_list()[1:]}: name the model's data under data"
            )
    scores = []
    for place in range(0, len(wanted), _CHUNK):
        part = slice(place, place + _CHUNK)
        sent = {key: tf.cast(features[key][part], spec.dtype) for key, spec in inputs.items()}
        answers = {key: values.numpy() for key, values in signature(**sent).items()}
        try:
            scores.append(_SCORES[metric](answers, wanted[part]))
        except KeyError as error:
            raise GatesRefused(
                f"metric={metric} needs the output {error.args[0]}, but the model has {', '.join(sorted(answers))}: "
                "choose another metric"
            ) from None
    return np.concatenate(scores)
