"""How often a run is interrupted: what its config expects, corrected by what has happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Exposure:
    """What can be lost.

    Attributes:
        hosts: Over how many the workers of this generation are spread.
        expected_mtbf_s: Mean time between failures of one host that is expected before any was seen.
    """

    hosts: int = 1
    expected_mtbf_s: float = 1000 * _HOUR_S


@dataclass(frozen=True)
class Interruptions:
    """What has happened to a run so far; it is kept with each saved state, so it survives what it counts.

    An interruption that ended in order, with its state handed over or saved (a stop, a preemption, a resize), costs no
    work and is not counted.

    Attributes:
        failures: Times that a generation or a process ended without having saved its last step.
        from_disk: Of them, those after which the state came from a checkpoint.

    >>> Interruptions(failures=1).mtbf_s(Exposure(hosts=4, expected_mtbf_s=400.0), 100.0)
    100.0
    """

    failures: int = 0
    from_disk: int = 0

    def after_restore(self, generations: int, *, was_in_order: bool, from_disk: bool) -> Interruptions:
        """With what lies between a saved state and the generation that goes on from it.

        Args:
            generations: How many later the one is that goes on.
            was_in_order: Whether the state was the last one of a generation that ended in order.
            from_disk: Whether it comes from a checkpoint.
        """
        new = max(0, generations - was_in_order)
        return Interruptions(self.failures + new, self.from_disk + (from_disk and new > 0))

    def mtbf_s(self, exposure: Exposure, observed_s: float) -> float:
        """Mean time between failures of the whole run.

        The expected time counts as one failure that was seen in that time (a gamma prior of weight one): it rules at
        the beginning, and what happens overrules it.

        Args:
            exposure: What can fail and what is expected.
            observed_s: For how long the run has trained.
        """
        return (exposure.expected_mtbf_s / exposure.hosts + observed_s) / (1 + self.failures)

    def disk_mtbf_s(self, exposure: Exposure, observed_s: float, has_snapshots: bool) -> float:
        """Mean time between failures that leave nothing but checkpoints.

        With snapshots in the memory of every host that is the loss of all of them, or of the host that supervises:
        as rare as that of one host.
        """
        if not has_snapshots:
            return self.mtbf_s(exposure, observed_s)
        return (exposure.expected_mtbf_s + observed_s) / (1 + self.from_disk)

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> Interruptions:
        """Reads what `to_json` gives; none where a state says nothing of it."""
        return cls(**content) if content else cls()
