"""From the `task` section to the task."""

from __future__ import annotations

from trainer.config.recommendation import RetrievalTask
from trainer.config.segmentation import SegmentationTask
from trainer.config.task import (
    ClassificationTask,
    CustomTask,
    LanguageModellingTask,
    MaskedLmTask,
    MultiLabelTask,
    RegressionTask,
    TaskConfig,
)
from trainer.config.verification import VerificationTask
from trainer.data.source import Schema
from trainer.tasks.classification import Classification
from trainer.tasks.custom import custom_task
from trainer.tasks.language_modelling import LanguageModelling
from trainer.tasks.masked_lm import MaskedLm
from trainer.tasks.multi_label import MultiLabel
from trainer.tasks.regression import Regression
from trainer.tasks.retrieval import Retrieval
from trainer.tasks.segmentation import Segmentation
from trainer.tasks.task import Task
from trainer.tasks.verification import Verification


def build_task(config: TaskConfig, schema: Schema) -> Task:
    """The task of a config, for data of this schema.

    Raises:
        ValueError: The data is of another kind than the task needs.
    """
    match config:
        case ClassificationTask():
            return Classification(config, schema)
        case RegressionTask():
            return Regression(config, schema)
        case LanguageModellingTask():
            return LanguageModelling(config, schema)
        case MaskedLmTask():
            return MaskedLm(config, schema)
        case MultiLabelTask():
            return MultiLabel(config, schema)
        case SegmentationTask():
            return Segmentation(config, schema)
        case RetrievalTask():
            return Retrieval(config, schema)
        case VerificationTask():
            return Verification(config, schema)
        case CustomTask():
            return custom_task(config, schema)
