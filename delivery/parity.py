"""Whether a saved model answers as the trained one does, on real samples.

Shape legend: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from delivery.serving_inputs import ServedInput
from delivery.serving_module import answers_of
from trainer.tasks.task import Task

# Relative to the answer, or absolute where it is below 1. The 16-bit types keep 8 and 11 bits of each product.
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 5e-2, "mixed_float16": 1e-2}


class ExportRefused(Exception):
    """The saved model does not answer as the trained one. The message is one sentence for the user."""


class Parity:
    """Compares a SavedModel on disk with the model in memory.

    Args:
        model: The trained model.
        task: Its task.
        weights: Values of the trainable and of the other variables to compare with.
        tolerance: Largest difference allowed, as in `TOLERANCE`.
    """

    def __init__(
        self,
        model: keras.Model,
        task: Task,
        weights: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
        tolerance: float,
    ) -> None:
        self._model, self._task, self._weights, self._tolerance = model, task, weights, tolerance

    def check(
        self,
        loaded: Any,
        inputs_of: Mapping[str, Mapping[str, ServedInput]],
        samples: Mapping[str, np.ndarray],
    ) -> float:
        """Sends the samples through every signature, in one batch, one alone, and tokens also cut short.

        Args:
            loaded: The SavedModel, read back from the disk.
            inputs_of: What each signature takes.
            samples: The model's features, [B, ...] each, B at least 1.

        Returns:
            The largest difference found.

        Raises:
            ExportRefused: It exceeds the tolerance, an output is missing, or the preprocessing does not lead back to
                the features that the model was trained on.
        """
        largest = 0.0
        for name, inputs in inputs_of.items():
            sent = {key: served.encode(samples[key]) for key, served in inputs.items()}
            decoded = {key: served.decode(tf.constant(sent[key])) for key, served in inputs.items()}
            for key, served in inputs.items():
                _compare_decoded(name, key, decoded[key].numpy(), samples[key], served.rounding)
            expected = {key: values.numpy() for key, values in self._expected(decoded).items()}
            for part in self._parts(sent, inputs):
                answers = loaded.signatures[name](**{key: tf.constant(value[part]) for key, value in sent.items()})
                wanted = {key: values[part] for key, values in expected.items()}
                largest = max(largest, self._compare(name, wanted, answers))
        return largest

    def _expected(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch = dict(features) if len(features) > 1 else next(iter(features.values()))
        trainable, non_trainable = ([tf.constant(value) for value in values] for values in self._weights)
        outputs = self._model.stateless_call(trainable, non_trainable, batch, training=False)[0]
        return answers_of(self._task, outputs)

    @staticmethod
    def _parts(sent: Mapping[str, np.ndarray], inputs: Mapping[str, ServedInput]) -> list[tuple[slice, ...]]:
        """All samples; the first alone; and half of each sequence where its length is free."""
        parts: list[tuple[slice, ...]] = [(slice(None),), (slice(0, 1),)]
        (name, served), *others = inputs.items()
        if not others and served.spec.shape.rank == 2 and served.spec.shape[1] is None:
            parts.append((slice(0, 4), slice(0, max(1, sent[name].shape[1] // 2))))
        return parts

    def _compare(self, name: str, wanted: Mapping[str, np.ndarray], answers: Mapping[str, tf.Tensor]) -> float:
        largest = 0.0
        for key, values in wanted.items():
            if key not in answers:
                raise ExportRefused(f"signature {name} of the saved model has no output {key}: nothing was exported")
            if not np.issubdtype(values.dtype, np.floating):
                continue  # classes follow from the logits; at a tie the last bit decides
            got = answers[key].numpy()
            if got.shape != values.shape:
                raise ExportRefused(
                    f"output {key} of signature {name} has shape {list(got.shape)} in the saved model and "
                    f"{list(values.shape)} in the trained one: nothing was exported"
                )
            difference = float(np.max(np.abs(got - values) / np.maximum(np.abs(values), 1.0), initial=0.0))
            if not difference <= self._tolerance:  # NaN is no agreement either
                raise ExportRefused(
                    f"output {key} of signature {name} differs by {difference:.3g} between the saved and the trained "
                    f"model on the same samples, more than {self._tolerance:g}: nothing was exported; "
                    "check the model for layers that behave differently from call to call"
                )
            largest = max(largest, difference)
        return largest


def _compare_decoded(name: str, key: str, decoded: np.ndarray, trained_on: np.ndarray, rounding: float) -> None:
    """Raw inputs must become the very features of training, up to what rounding to the raw form costs."""
    difference = float(np.max(np.abs(decoded.astype(np.float64) - trained_on.astype(np.float64)), initial=0.0))
    if not difference <= rounding:
        raise ExportRefused(
            f"the preprocessing of input {key} in signature {name} is off by {difference:.3g} from the feature that "
            f"the model was trained on, more than {rounding:.3g}: nothing was exported; "
            f"check the data source's schema of {key}"
        )
