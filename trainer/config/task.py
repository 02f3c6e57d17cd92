"""The `task` section: what the loss, the metrics and a batch mean."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from trainer.config.choice import ChosenByName
from trainer.config.model import IMPORTABLE
from trainer.config.section import Section
from trainer.config.segmentation import SegmentationTask


class ClassificationTask(Section):
    """One class for each sample."""

    name: Literal["classification"] = "classification"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the target's weight that is spread over all classes"
    )
    top_k: PositiveInt | None = Field(
        default=None, description="also report how often the class is among the k most likely ones"
    )


class RegressionTask(Section):
    """One number, or several, for each sample."""

    name: Literal["regression"] = "regression"
    loss: Literal["squared", "absolute"] = Field(default="squared", description="error that training minimises")


class LanguageModellingTask(Section):
    """The next token, at every position."""

    name: Literal["language_modelling"] = "language_modelling"


class MultiLabelTask(Section):
    """Any number of labels for each sample, each present or not."""

    name: Literal["multi_label"] = "multi_label"
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="a label is predicted from this probability on"
    )


class CustomTask(Section):
    """A task of the user's own: a function that returns a `trainer.tasks.task.Task`."""

    name: Annotated[str, Field(pattern=IMPORTABLE, description="package.module:function")]
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the function")


TaskConfig = Annotated[
    ClassificationTask | RegressionTask | LanguageModellingTask | MultiLabelTask | SegmentationTask | CustomTask,
    ChosenByName(default="classification"),
]
