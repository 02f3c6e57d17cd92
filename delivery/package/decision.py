"""What an export says of the decision for one class, for those who act on the model's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.data.source import Schema
from trainer.tasks.classification import Classification
from trainer.tasks.task import Task


def decision_of(task: Task, schema: Schema, evaluation: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The calibrated threshold as a part of an export's description.

    Args:
        task: Of the run.
        schema: Of the training data.
        evaluation: The run's evaluation of the exported step; None where there is none.

    Returns:
        `decision`: the class, the probability from which on a sample counts as it, precision and recall as they were
        measured. Empty where no threshold was calibrated at this step or none reaches the precision that was asked for.
    """
    threshold = (evaluation or {}).get("threshold")
    if not isinstance(task, Classification) or task.positive is None or threshold is None:
        return {}
    assert evaluation is not None
    names = schema.class_names or tuple(map(str, range(schema.num_classes or 0)))
    return {
        "decision": {
            "class": names[task.positive],
            "threshold": threshold,
            "precision": evaluation["threshold_precision"],
            "recall": evaluation["threshold_recall"],
        }
    }
