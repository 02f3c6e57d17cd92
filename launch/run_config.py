"""The whole config of a run: the training and the cluster that it runs on."""

from typing import Any

from pydantic import Field, model_validator

from cluster.config import ClusterConfig, WorkerRange
from trainer.config.combinations import batch_problems
from trainer.config.strategy import OF_WORKERS
from trainer.config.training import TrainingConfig
from trainer.parameter_server.roles import Roles


class RunConfig(TrainingConfig):
    """What `phalanx train` reads: every section of the training, and `cluster`."""

    cluster: ClusterConfig = Field(default=ClusterConfig(), description="where workers run")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of workers that `cluster.workers` allows and that can share a global batch equally."""
        allowed = range(self.cluster.min_workers, self.cluster.max_workers + 1)
        if self.is_elastic:
            return tuple(allowed)
        return tuple(size for size in allowed if not batch_problems(self, size, "cluster.workers"))

    @property
    def is_elastic(self) -> bool:
        """Whether its workers form one group after another in the same processes."""
        several = self.cluster.max_workers > 1 or self.cluster.kind == "ray"
        one_gpu = self.cluster.kind != "ray" or self.cluster.ray.gpus_per_worker <= 1
        return self.strategy.name == "elastic" or (self.strategy.name == "auto" and several and one_gpu)

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor watches its processes, and not the launcher trains itself."""
        return self.cluster.max_workers > 1 or self.cluster.kind != "local" or self.strategy.name == "elastic"

    @property
    def num_parts(self) -> int:
        """Into how many parts an elastic run cuts its batches, whatever the number of its workers."""
        return self.train.virtual_workers or self.cluster.max_workers

    @model_validator(mode="after")
    def _workers_have_a_strategy(self) -> "RunConfig":
        workers, strategy = self.cluster.max_workers, self.strategy.name
        name = "cluster.workers.max" if isinstance(self.cluster.workers, WorkerRange) else "cluster.workers"
        if workers > 1 and strategy not in ("auto", *OF_WORKERS):
            raise ValueError(
                f"{name}={workers} must have a strategy that spreads a step over workers, not "
                f"strategy.name={strategy}: set strategy.name=auto or strategy.name=multi_worker_mirrored"
            )
        if workers == 1 and strategy in OF_WORKERS and strategy != "elastic":
            needed, number = ("three", 3) if strategy == "parameter_server" else ("two", 2)
            raise ValueError(
                f"strategy.name={strategy} must have at least {needed} workers: set cluster.workers={number}, or "
                "strategy.name=one_device"
            )
        if workers > 1 and self.strategy.devices is not None:
            raise ValueError(
                f"strategy.devices={self.strategy.devices} must not be set with {name}={workers}, of which each takes "
                "the devices that it has: remove it"
            )
        if self.elastic.outer_every is not None and not self.is_elastic:
            raise ValueError(
                f"elastic.outer_every={self.elastic.outer_every} is of strategy.name=elastic, which strategy.name=auto "
                f"does not choose here: set strategy.name=elastic, or {name}=2 or more"
            )
        if strategy == "horovod" and self.cluster.kind == "ray" and self.cluster.ray.gpus_per_worker > 1:
            gpus = self.cluster.ray.gpus_per_worker
            raise ValueError(
                f"cluster.ray.gpus_per_worker={gpus:g} must be at most 1 with strategy.name=horovod, which has a "
                f"process for each GPU: set it to 1 and {name}={workers * int(gpus)}"
            )
        if problem := self._service_problem():
            raise ValueError(problem)
        if self.is_elastic:
            problems = self._part_problems(name)
        else:
            problems = self._role_problems() if strategy == "parameter_server" else self._size_problems()
        if self.is_supervised and problems:
            raise ValueError("\n".join(problems))
        return self

    def _service_problem(self) -> str | None:
        """What stands against a data service on this cluster."""
        service, kind = self.data.service, self.cluster.kind
        if service is None:
            return None
        if kind == "tpu":
            return (
                "data.service must have hosts beside those that train, which cluster.kind=tpu does not: remove it, or "
                "set cluster.kind=ray with cluster.ray.slice on a Ray cluster that has other nodes as well"
            )
        if kind != "ray" and service.cpus_per_worker != 1:
            return (
                f"data.service.cpus_per_worker={service.cpus_per_worker:g} is what Ray keeps free and says nothing "
                f"with cluster.kind={kind}: remove it"
            )
        return None

    def _role_problems(self) -> list[str]:
        """What stands against the roles of a training with parameter servers."""
        workers = self.cluster.workers
        if isinstance(workers, WorkerRange):
            return [
                f"strategy.name=parameter_server must have a fixed number of workers: set cluster.workers={workers.max}"
            ]
        roles = Roles(workers, self.strategy.parameter_servers)
        if not self.strategy.synchronous:
            return []
        return batch_problems(self, roles.workers, "the number of workers that compute")

    def _part_problems(self, name: str) -> list[str]:
        """What stands against the parts of an elastic run."""
        workers, parts = self.cluster.max_workers, self.num_parts
        if parts < workers:
            return [
                f"train.virtual_workers={parts} must be at least {name}={workers}, because each worker computes at "
                f"least one part of the batch: set train.virtual_workers={workers}, or to a multiple of it"
            ]
        problems = batch_problems(self, parts, "train.virtual_workers" if self.train.virtual_workers else name)
        if self.train.on_nan == "rollback":
            problems.append(
                "train.on_nan=rollback needs a state that all workers kept at one step, which a worker that joins an "
                "elastic run does not have: set train.on_nan=stop or strategy.name=multi_worker_mirrored"
            )
        if self.data.remainder == "keep":
            problems.append(
                "data.remainder=keep leaves a last batch of another size, which strategy.name=elastic cannot cut: set "
                "data.remainder=pad, which weights the padding with zero, or drop"
            )
        return problems

    def _size_problems(self) -> list[str]:
        """What stands against the sizes of the generations; the config names the first and the last of them."""
        cluster = self.cluster
        if not isinstance(cluster.workers, WorkerRange):
            return batch_problems(self, cluster.workers, "cluster.workers")
        ends = {"cluster.workers.min": cluster.min_workers, "cluster.workers.max": cluster.max_workers}
        problems = [problem for name, size in ends.items() for problem in batch_problems(self, size, name)]
        usable = ", ".join(map(str, self.sizes)) or "none"
        hint = f" (of {cluster.min_workers} to {cluster.max_workers} workers these can be used: {usable})"
        return [problem + hint for problem in problems[:1]]


def with_strategy_of_slice(values: dict[str, Any]) -> dict[str, Any]:
    """Of a config as it is read: on a Cloud TPU slice strategy.name=auto is tpu, whose rules then apply.

    >>> with_strategy_of_slice({"cluster": {"kind": "tpu"}})["strategy"]
    {'name': 'tpu'}
    >>> with_strategy_of_slice({"cluster": {"kind": "ray", "ray": {"slice": "v6e-8"}}})["strategy"]
    {'name': 'tpu'}
    >>> with_strategy_of_slice({"cluster": {"kind": "tpu"}, "strategy": {"name": "one_device"}})["strategy"]
    {'name': 'one_device'}
    """
    cluster, strategy = values.get("cluster"), values.get("strategy", {})
    if not isinstance(cluster, dict) or not isinstance(strategy, dict) or strategy.get("name", "auto") != "auto":
        return values
    ray = cluster.get("ray")
    of_ray = cluster.get("kind") == "ray" and isinstance(ray, dict) and ray.get("slice") is not None
    return {**values, "strategy": {**strategy, "name": "tpu"}} if of_ray or cluster.get("kind") == "tpu" else values


def with_hosts_of_slice(config: RunConfig, name: str | None) -> RunConfig:
    """The config of the worker on the first host of a slice.

    Args:
        config: of the run.
        name: of a slice of several hosts, which are reached by its name; None: this host has all its chips.
    """
    if name is None or config.strategy.tpu != "local":
        return config
    return config.model_copy(update={"strategy": config.strategy.model_copy(update={"tpu": name})})
