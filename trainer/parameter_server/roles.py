"""Who is what in a group whose weights are held by parameter servers, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Job = Literal["chief", "ps", "worker"]

COORDINATOR = "/job:chief/replica:0/task:0"
"""TensorFlow's name for the coordinator's devices."""


@dataclass(frozen=True)
class Roles:
    """The ranks of a group: 0 is the coordinator, the next ones are the parameter servers, the rest are workers.

    The coordinator is the chief of the run: it reads the data, sends out steps and writes all records. It trains
    nothing itself. Parameter servers hold the weights and apply the updates, workers compute gradients.

    Attributes:
        size: of the group.
        parameter_servers: how many of them hold weights.

    Raises:
        ValueError: nobody would be left to compute.

    >>> roles = Roles(size=5, parameter_servers=2)
    >>> [roles.task(rank) for rank in range(5)]
    [('chief', 0), ('ps', 0), ('ps', 1), ('worker', 0), ('worker', 1)]
    >>> roles.cluster(["h:1", "h:2", "h:3", "h:4", "h:5"])
    {'chief': ['h:1'], 'ps': ['h:2', 'h:3'], 'worker': ['h:4', 'h:5']}
    """

    size: int
    parameter_servers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(
                f"cluster.workers={self.size} must be at least {self.parameter_servers + 2} with "
                f"strategy.name=parameter_server: a coordinator, strategy.parameter_servers={self.parameter_servers} "
                "that hold the weights, and one that computes"
            )

    @property
    def workers(self) -> int:
        """How many compute."""
        return self.size - 1 - self.parameter_servers

    def task(self, rank: int) -> tuple[Job, int]:
        """TensorFlow's job and number of a rank."""
        if rank == 0:
            return "chief", 0
        if rank <= self.parameter_servers:
            return "ps", rank - 1
        return "worker", rank - 1 - self.parameter_servers

    def cluster(self, addresses: Sequence[str]) -> dict[str, list[str]]:
        """The addresses by job."""
        first_worker = 1 + self.parameter_servers
        return {
            "chief": list(addresses[:1]),
            "ps": list(addresses[1:first_worker]),
            "worker": list(addresses[first_worker:]),
        }
