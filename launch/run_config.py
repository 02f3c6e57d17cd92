"""The whole config of a run: the training and the cluster that it runs on."""

from pydantic import Field, model_validator

from cluster.config import ClusterConfig
from trainer.config.training import TrainingConfig


class RunConfig(TrainingConfig):
    """What `phalanx train` reads: every section of the training, and `cluster`."""

    cluster: ClusterConfig = Field(default=ClusterConfig(), description="where workers run")

    @model_validator(mode="after")
    def _workers_have_a_strategy(self) -> "RunConfig":
        workers, strategy = self.cluster.workers, self.strategy.name
        if workers > 1 and strategy != "multi_worker_mirrored":
            raise ValueError(
                f"cluster.workers={workers} must have a strategy that spreads a step over workers, not "
                f"strategy.name={strategy}: set strategy.name=multi_worker_mirrored"
            )
        if workers == 1 and strategy == "multi_worker_mirrored":
            raise ValueError(
                f"strategy.name={strategy} must have at least two workers: set cluster.workers=2, or "
                "strategy.name=one_device"
            )
        if self.data.batch_size % workers:
            raise ValueError(
                f"cluster.workers={workers} must divide data.batch_size={self.data.batch_size}: "
                f"set data.batch_size to a multiple of {workers}"
            )
        return self
