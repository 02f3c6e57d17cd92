"""The whole config of a run: the training and the cluster that it runs on."""

from pydantic import Field

from cluster.config import ClusterConfig
from trainer.config.training import TrainingConfig


class RunConfig(TrainingConfig):
    """What `phalanx train` reads: every section of the training, and `cluster`."""

    cluster: ClusterConfig = Field(default=ClusterConfig(), description="where workers run")
