"""A process's place among the workers of one generation, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.config.strategy import OF_WORKERS
from trainer.config.training import TrainingConfig


@dataclass(frozen=True)
class Group:
    """Who trains together.

    Attributes:
        rank: Of this process, 0-based; rank 0 is the chief, who alone writes the run's records.
        addresses: "host:port" of every worker, by rank.
        generation: Which membership of the run this is.

    Raises:
        ValueError: The rank is not one of the group's.

    >>> Group(1, ("10.0.0.1:4711", "10.0.0.2:4711")).is_chief
    False
    """

    rank: int
    addresses: tuple[str, ...]
    generation: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < len(self.addresses):
            raise ValueError(
                f"the worker's rank {self.rank} must be one of the {len(self.addresses)} of its group: "
                "give the address of every worker"
            )

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the records of the run."""
        return self.rank == 0


def check_group(config: TrainingConfig, group: Group | None, can_regroup: bool = False) -> None:
    """Compares the strategy with the group that it is to run in.

    Args:
        config: Of the training.
        group: The workers; None for a process alone, and for one that has yet to become a member.
        can_regroup: Whether it can.

    Raises:
        ValueError: The strategy needs a group and there is none, or it cannot use one.
    """
    name = config.strategy.name
    if name == "elastic" and can_regroup:
        return
    if name in OF_WORKERS and group is None:
        raise ValueError(
            f"strategy.name={name} must run in a group of workers: begin it with cluster.workers=2 or more, or set "
            "strategy.name=one_device"
        )
    if name not in OF_WORKERS and group is not None and group.size > 1:
        raise ValueError(
            f"strategy.name={name} cannot spread a step over {group.size} workers: "
            "set strategy.name=multi_worker_mirrored"
        )
