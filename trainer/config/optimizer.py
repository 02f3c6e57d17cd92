"""The `optimizer` section: the update rule, its learning-rate schedule, clipping and weight decay."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, model_validator

from trainer.config.choice import ChosenByName
from trainer.config.interval import Interval
from trainer.config.section import Section


def _counts_steps(interval: Interval) -> Interval:
    if interval.unit == "s":
        raise ValueError(f"{interval} is wall time, but a schedule must repeat exactly: use steps (st) or epochs (ep)")
    return interval


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression ({error}): correct it") from None
    return pattern


StepInterval = Annotated[Interval, AfterValidator(_counts_steps)]
Decay = Annotated[float, Field(ge=0, lt=1)]
WeightDecay = Annotated[float, Field(gt=0, lt=1)]


class Schedule(Section):
    """What every learning-rate schedule has."""

    warmup: StepInterval | None = Field(
        default=None,
        description="the rate grows linearly from 0 over this interval; the schedule proper starts after it",
    )


class ConstantSchedule(Schedule):
    """The same rate all the time."""

    name: Literal["constant"] = "constant"


class CosineSchedule(Schedule):
    """Half a cosine from the full rate down to `end_factor` of it at the last step (Loshchilov, Hutter 2016)."""

    name: Literal["cosine"] = "cosine"
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0


class LinearSchedule(Schedule):
    """A straight line from the full rate to `end_factor` of it at the last step."""

    name: Literal["linear"] = "linear"
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0


class StepSchedule(Schedule):
    """The rate is multiplied by `factor` at each boundary."""

    name: Literal["step"] = "step"
    boundaries: tuple[StepInterval, ...] = Field(
        min_length=1, description='since the start of training, e.g. ["30ep", "60ep"]'
    )
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


ScheduleConfig = Annotated[
    ConstantSchedule | CosineSchedule | LinearSchedule | StepSchedule, ChosenByName(default="constant")
]


class Optimizer(Section):
    """What every optimizer has."""

    learning_rate: PositiveFloat = Field(default=0.001, description="the full rate, which the schedule multiplies")
    schedule: ScheduleConfig = ConstantSchedule(warmup=None)
    weight_decay: WeightDecay | None = Field(
        default=None, description="decoupled: a step takes this times the learning rate off each weight"
    )
    no_decay: tuple[Annotated[str, AfterValidator(_compiles)], ...] = Field(
        default=("bias", "gamma", "beta", "scale"),
        description="weights without decay: regular expressions, searched in the weight's path",
    )
    clip_norm: PositiveFloat | None = Field(default=None, description="largest norm of the whole gradient")
    clip_value: PositiveFloat | None = Field(default=None, description="largest absolute value in the gradient")

    @model_validator(mode="after")
    def _clips_once(self) -> "Optimizer":
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError(
                f"optimizer.clip_norm={self.clip_norm:g} and optimizer.clip_value={self.clip_value:g} must not both be "
                "given: remove one, or set it to null"
            )
        return self


class AdamOptimizer(Optimizer):
    """Adam (Kingma, Ba 2014)."""

    name: Literal["adam"] = "adam"
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7


class AdamWOptimizer(Optimizer):
    """Adam with weight decay by default (Loshchilov, Hutter 2017)."""

    name: Literal["adamw"] = "adamw"
    weight_decay: WeightDecay | None = 0.01
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7


class SgdOptimizer(Optimizer):
    """Gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.01
    momentum: Decay = 0.9
    nesterov: bool = False


class AdagradOptimizer(Optimizer):
    """Adagrad: the rate of a weight falls with the gradients that it had; for embeddings (Duchi et al. 2011)."""

    name: Literal["adagrad"] = "adagrad"
    learning_rate: PositiveFloat = 0.05
    initial_accumulator: PositiveFloat = Field(default=0.1, description="sum of squares that each weight begins with")
    epsilon: PositiveFloat = 1e-7


class LambOptimizer(Optimizer):
    """LAMB: Adam whose step has the same relative size in every layer; for large batches (You et al. 2019)."""

    name: Literal["lamb"] = "lamb"
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-6


class AdafactorOptimizer(Optimizer):
    """Adafactor: second moments of matrices kept as a row and a column (Shazeer, Stern 2018)."""

    name: Literal["adafactor"] = "adafactor"
    learning_rate: PositiveFloat = 0.01
    clip_threshold: PositiveFloat = Field(default=1.0, description="largest root mean square of an update")


OptimizerConfig = Annotated[
    AdamOptimizer | AdamWOptimizer | SgdOptimizer | AdagradOptimizer | LambOptimizer | AdafactorOptimizer,
    ChosenByName(default="adam"),
]
