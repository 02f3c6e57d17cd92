"""The `task` section: what the loss, the metrics and a batch mean."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from trainer.config.choice import ChosenByName
from trainer.config.model import IMPORTABLE
from trainer.config.recommendation import RetrievalTask
from trainer.config.section import Section
from trainer.config.segmentation import SegmentationTask
from trainer.config.verification import VerificationTask


def _as_text(name: Any) -> Any:
    """A class as its name: YAML reads the class "1" of a table as a number."""
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else name


ClassName = Annotated[str, BeforeValidator(_as_text)]


class ClassificationTask(Section):
    """One class for each sample."""

    name: Literal["classification"] = "classification"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the target's weight that is spread over all classes"
    )
    top_k: PositiveInt | None = Field(
        default=None, description="also report how often the class is among the k most likely ones"
    )
    focal_gamma: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="how far the loss looks away from samples that are classified well; 2 is usual"
    )
    class_weights: dict[ClassName, PositiveFloat] = Field(
        default={}, description="how much a sample of a class counts in the loss, by the class's name; all others: 1"
    )
    positive: ClassName | None = Field(
        default=None,
        description="the class that is looked for, for auc and pr_auc; without it, the second of two classes",
    )
    target_precision: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="also report the threshold from which the positive class is right this often, and what it finds",
    )

    @model_validator(mode="after")
    def _focal_loss_has_one_target(self) -> "ClassificationTask":
        if self.focal_gamma and self.label_smoothing:
            raise ValueError(
                f"task.focal_gamma={self.focal_gamma:g} looks at the probability of one class, but "
                f"task.label_smoothing={self.label_smoothing:g} gives a sample a share of all: set one of them to 0"
            )
        return self


class RegressionTask(Section):
    """One number, or several, for each sample."""

    name: Literal["regression"] = "regression"
    loss: Literal["squared", "absolute"] = Field(default="squared", description="error that training minimises")


class LanguageModellingTask(Section):
    """The next token, at every position."""

    name: Literal["language_modelling"] = "language_modelling"


class MaskedLmTask(Section):
    """The hidden tokens of a text."""

    name: Literal["masked_lm"] = "masked_lm"


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
    ClassificationTask
    | RegressionTask
    | LanguageModellingTask
    | MaskedLmTask
    | MultiLabelTask
    | SegmentationTask
    | RetrievalTask
    | VerificationTask
    | CustomTask,
    ChosenByName(default="classification"),
]
