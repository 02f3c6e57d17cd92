"""The decisions that can be exchanged: what the supervisor asks of a policy, and the policies that settings mean."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster.assignment import ErrorReport
from cluster.supervisor.failure_policy import BudgetedFailures, Verdict
from cluster.supervisor.fleet import Worker
from cluster.supervisor.generation_progress import GenerationProgress
from cluster.supervisor.hang_policy import Hang, MedianHangs
from cluster.supervisor.host_policy import HostsSetAside
from cluster.supervisor.scaling_policy import MinMaxScaling
from cluster.supervisor.settings import Settings


class FailurePolicy(Protocol):
    """What trouble is allowed. `BudgetedFailures` says what each method means."""

    def fail(self, now: float, best_step: int) -> Verdict: ...  # noqa: D102
    def preempt(self, now: float) -> Verdict: ...  # noqa: D102
    def may_resize(self) -> bool: ...  # noqa: D102
    def resize(self, now: float) -> None: ...  # noqa: D102
    def is_repeated(self, error: ErrorReport, began_at: float, now: float) -> bool: ...  # noqa: D102
    def note_progress(self, now: float, running_since: float, best_step: int) -> None: ...  # noqa: D102


class ScalingPolicy(Protocol):
    """How many workers. `MinMaxScaling` says what each method means."""

    def wanted(self, capacity: int) -> int: ...  # noqa: D102
    def suffices(self, capacity: int) -> bool: ...  # noqa: D102
    def size(self, candidates: int, goal: int | None, waited_s: float, survive: bool = False) -> int | None: ...  # noqa: D102
    def least(self, goal: int | None, waited_s: float, survive: bool = False) -> int: ...  # noqa: D102
    def grown_size(self, size: int, candidates: int, running_s: float, survive: bool = False) -> int | None: ...  # noqa: D102
    def must_grow(self, waiting_s: float) -> bool: ...  # noqa: D102


class HostPolicy(Protocol):
    """Which hosts. `HostsSetAside` says what each method means."""

    def fail(self, host: str, now: float, others: Collection[str]) -> bool: ...  # noqa: D102
    def set_aside(self, host: str, now: float) -> float: ...  # noqa: D102
    @property
    def num_aside(self) -> int: ...  # noqa: D102
    def is_aside(self, host: str) -> bool: ...  # noqa: D102
    def come_back(self, now: float) -> list[str]: ...  # noqa: D102
    def recall(self) -> list[str]: ...  # noqa: D102
    def start_failed(self, host: str, lived_s: float, now: float, others: Collection[str]) -> bool: ...  # noqa: D102
    def start_worked(self, host: str) -> None: ...  # noqa: D102
    def may_start(self, host: str, now: float) -> bool: ...  # noqa: D102


class HangPolicy(Protocol):
    """Which member hangs. `MedianHangs` says what each method means."""

    def find(  # noqa: D102
        self,
        progress: GenerationProgress,
        heard_at: Mapping[str, float],
        now: float,
        median_s: float | None,
        watched_from: float,
    ) -> Hang | None: ...
    def find_silent(self, workers: Iterable[Worker], now: float, watched_from: float) -> list[Hang]: ...  # noqa: D102


@dataclass(frozen=True)
class Policies:
    """One policy of each kind. They are deterministic and do no I/O; a run has its own, for they remember."""

    failures: FailurePolicy
    scaling: ScalingPolicy
    hosts: HostPolicy
    hangs: HangPolicy

    @classmethod
    def from_settings(cls, settings: Settings) -> "Policies":
        """The policies that the settings describe."""
        return cls(
            failures=BudgetedFailures(settings.budgets, settings.back_off),
            scaling=MinMaxScaling(settings.sizes),
            hosts=HostsSetAside(settings.hosts, settings.back_off),
            hangs=MedianHangs(settings.hangs),
        )
