"""The config of one training: every section that the trainer reads."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from trainer.config import combinations
from trainer.config.checkpoint import CheckpointConfig
from trainer.config.choice import ChosenByName
from trainer.config.elastic import ElasticConfig
from trainer.config.evaluate import EvaluateConfig
from trainer.config.export import ExportConfig
from trainer.config.freeze import FreezeConfig
from trainer.config.mixture import MixableData, MixtureData
from trainer.config.model import ModelConfig
from trainer.config.observe import ObserveConfig
from trainer.config.optimizer import AdamOptimizer, OptimizerConfig
from trainer.config.place import PlaceConfig
from trainer.config.recommendation import MovielensData
from trainer.config.section import Section
from trainer.config.strategy import OF_WORKERS, StrategyConfig
from trainer.config.task import ClassificationTask, TaskConfig
from trainer.config.tied import TiedConfig
from trainer.config.train import TrainConfig
from trainer.config.warm_start import WarmStartConfig

AnyData = Annotated[MixableData | MovielensData | MixtureData, ChosenByName()]


class TrainingConfig(Section):
    """What to train, on what, for how long and how it is recorded."""

    run: PlaceConfig = Field(default=PlaceConfig(), description="name and place of the run folder")
    model: ModelConfig = Field(description="the network")
    task: TaskConfig = Field(default=ClassificationTask(), description="what loss and metrics mean")
    data: AnyData = Field(description="where samples come from and how they are batched")
    train: TrainConfig = Field(description="length and execution of the training")
    optimizer: OptimizerConfig = Field(default=AdamOptimizer(), description="the update rule and its schedule")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32", description="of the computation; weights stay float32"
    )
    evaluate: EvaluateConfig = Field(default=EvaluateConfig(), description="when the held-out split is measured")
    checkpoint: CheckpointConfig = Field(default=CheckpointConfig(), description="when the state is saved")
    strategy: StrategyConfig = Field(default=StrategyConfig(), description="over which devices a step is spread")
    elastic: ElasticConfig = Field(default=ElasticConfig(), description="options of strategy.name=elastic")
    observe: ObserveConfig = Field(default=ObserveConfig(), description="what is recorded")
    warm_start: WarmStartConfig | None = Field(default=None, description="weights that the model begins with")
    freeze: tuple[FreezeConfig, ...] = Field(default=(), description="layers that are not trained, or not yet")
    tied: TiedConfig | None = Field(default=None, description="weights that stay zero, or equal, as they began")
    export: ExportConfig = Field(default=ExportConfig(), description="the SavedModel at the end")

    def for_one_process(self) -> Self:
        """The same training for a process without a group: its step is on one device, its weights are the same."""
        if self.strategy.name not in OF_WORKERS:
            return self
        return self.model_copy(update={"strategy": StrategyConfig()})

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "TrainingConfig":
        if problems := combinations.problems_of(self):
            # One line a problem: the loader shows each as a sentence of its own.
            raise ValueError("\n".join(problems))
        return self
