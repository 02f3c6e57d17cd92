"""How good the exported model is on held-out samples, as a whole and by class.

Shape legend: B batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from delivery.package.served_answers import Answered
from trainer.tasks.classification import Classification
from trainer.tasks.language_modelling import LanguageModelling
from trainer.tasks.multi_label import MultiLabel
from trainer.tasks.regression import Regression
from trainer.tasks.segmentation import Segmentation
from trainer.tasks.task import Task, f1_scores, ratio

# The answer that is the model's own output, of which the others are made; for pixels, one that gives the same metrics.
_OUTPUTS = (
    (Classification, "logits"),
    (MultiLabel, "logits"),
    (Segmentation, "probabilities"),
    (LanguageModelling, "logits"),
    (Regression, "values"),
)
# Where the hits, predictions and occurrences of each class are among the sums.
_COUNTS = ((Classification, "classes"), (MultiLabel, "labels"), (Segmentation, "pixels"))


def held_out_metrics(task: Task, answered: Iterable[Answered], class_names: Sequence[str] | None) -> dict[str, Any]:
    """The task's metrics over the answered samples, exact whatever their batches.

    Returns:
        `samples`; `metrics` by name, and for tasks of classes `by_class`: precision, recall, f1 and support.
        A metric that has nothing to divide by is None. Without `metrics` for a task of one's own, whose answers need
        not hold the outputs that its metrics are made of.
    """
    sums: dict[str, np.ndarray] = {}
    samples = 0
    for part in answered:
        samples += len(part)
        output = next((name for kind, name in _OUTPUTS if isinstance(task, kind)), None)
        if output is None:
            continue
        outputs = part.answers[output]
        for name, values in task.metric_sums(tf.constant(outputs), part.batch).items():
            sums[name] = sums.get(name, 0.0) + np.asarray(values, np.float64)
    if not sums:
        return {"samples": samples}
    metrics = {name: finite(value) for name, value in task.metrics(sums).items()}
    result: dict[str, Any] = {"samples": samples, "metrics": metrics}
    counts = next((name for kind, name in _COUNTS if isinstance(task, kind)), None)
    if counts is not None:
        result["by_class"] = _by_class(sums[counts].reshape(3, -1), class_names)
    return result


def finite(value: float) -> float | None:
    """The number; None where JSON has none for it."""
    return float(value) if math.isfinite(value) else None


def _by_class(counts: np.ndarray, class_names: Sequence[str] | None) -> dict[str, dict[str, float | int | None]]:
    """From [3, C]: true positives, predictions and occurrences of each class."""
    hits, predicted, actual = counts
    precision, recall, f1 = ratio(hits, predicted), ratio(hits, actual), f1_scores(counts)
    names = class_names or [str(number) for number in range(counts.shape[1])]
    return {
        name: {
            "precision": finite(precision[number]),
            "recall": finite(recall[number]),
            "f1": finite(f1[number]),
            "support": int(actual[number]),
        }
        for number, name in enumerate(names)
    }
