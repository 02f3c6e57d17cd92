"""The `train` section: how long, from which seed, and how a step is carried out."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from trainer.config.path_text import PathText
from trainer.config.section import Section


class TrainConfig(Section):
    """Length and execution of the training itself; exactly one of `steps` and `epochs` is given."""

    steps: PositiveInt | None = Field(default=None, description="optimizer steps; give this or epochs")
    epochs: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="passes over the data; give this or steps"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="of the weights, the sample order, dropout and augmentation"
    )
    log_every: PositiveInt = Field(default=50, description="steps between two lines of metrics.jsonl")
    steps_per_loop: PositiveInt = Field(default=50, description="most steps that run before Python sees the result")
    virtual_workers: PositiveInt | None = Field(
        default=None,
        description="fixed parts of the global batch, so that the curve is the same on any number of workers",
    )
    xla: bool = Field(default=False, description="compile the step with XLA")
    xla_scope: Literal["auto", "step", "loop", "update"] = Field(
        default="auto",
        description="what train.xla compiles as one program: a step; a loop of steps, which saves the hand-over "
        "between them and pays for small models without convolutions; or the update alone, where TensorFlow's own "
        "kernels are faster; auto: a step, but for convolutions on a CPU with AVX-512 at most the update",
    )
    compile_cache: PathText | None = Field(
        default=None,
        pattern=r"^\S+$",
        description="folder for programs that XLA has compiled, from which a run that starts again on the same kind of "
        "machine takes them; null: none",
    )
    synchronize_batch_norm: bool = Field(
        default=False,
        description="batch normalisation uses the statistics of the whole global batch in training, whatever it is cut "
        "into, instead of those of each part",
    )
    accumulate: PositiveInt = Field(default=1, description="micro-batches that a step adds up, to save memory")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="decay of an exponential moving average of the weights, such as 0.999"
    )
    on_nan: Literal["stop", "rollback"] = Field(
        default="stop",
        description="a loss or gradient that is not finite ends the run, or takes it back and skips those batches",
    )
    max_rollbacks: Annotated[int, Field(ge=0)] = Field(
        default=3, description="most roll-backs of a run, resumed or not, before it ends"
    )
    deterministic: bool = Field(
        default=True, description="the same losses to the bit on the same machine, at some speed"
    )

    @model_validator(mode="after")
    def _has_one_length(self) -> "TrainConfig":
        if self.steps is None and self.epochs is None:
            raise ValueError("train.steps and train.epochs are both missing: set one of them, as in train.epochs=5")
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"train.steps={self.steps} and train.epochs={self.epochs:g} must not both be given: "
                "remove one, or set it to null"
            )
        return self
