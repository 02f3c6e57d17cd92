"""Which strategy a run by several workers has, decided alike by the launcher and by each of its workers."""

from __future__ import annotations

from launch.run_config import RunConfig
from trainer.config.training import TrainingConfig
from trainer.strategies.choice import Choice, choose_strategy


def group_strategy(config: RunConfig) -> Choice:
    """The strategy of a run whose processes are supervised."""
    cluster = config.cluster
    gpus = cluster.ray.gpus_per_worker if cluster.kind == "ray" else 0
    return choose_strategy(config, cluster.max_workers, gpus)


def cut_in_parts(config: RunConfig) -> TrainingConfig:
    """The config of an elastic training with the number of its parts written out, and what one host does not need."""
    train = config.train.model_copy(update={"virtual_workers": config.num_parts})
    elastic = config.elastic
    if elastic.overlap == "auto" and config.cluster.kind == "local" and config.cluster.local.hosts == 1:
        elastic = elastic.model_copy(update={"overlap": "never"})
    return config.model_copy(update={"train": train, "elastic": elastic})
