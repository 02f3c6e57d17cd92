"""The result: how the wall time divides, and what each failure cost."""

from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.goodput.phases import PHASES, PRODUCTIVE
from trainer.goodput.timeline import Tile

# The cause of a failure that did not interrupt the training: a member was replaced while its generation went on.
REPLACEMENT = "replacement"


@dataclass
class Failure:
    """One interruption of the training.

    Attributes:
        at: when it was known, in the clock of the tiles: seconds since the epoch for a run's journal.
        generation: the generation that it ended; 0 for a process alone.
        cause: "failure", "hang", "host", "preemption", "resize", "launcher" (the launching process itself ended), "bad
            step", or "replacement": one that serves the others was lost, and they went on.
        what: for a person: "worker 1 on localhost was killed (SIGKILL)".
        rank, worker, host, signal, exit_code, error: of what died first, as far as it applies.
        phases: seconds of the interruption by phase, from the detection to the first step after it.
        steps_lost: completed steps that had to be done again; None while nobody knows from where the run goes on.
        lost_s: the time that was spent on them and on the step in flight.
        resumed_step: from where the run went on.
        source: "memory" or "checkpoint".
        is_over: whether a step was completed after it.
        replaced_s: of a replacement, the seconds until another one served in that place; None: nobody yet.
    """

    at: float
    generation: int
    cause: str
    what: str
    rank: int | None = None
    worker: str | None = None
    host: str | None = None
    signal: int | None = None
    exit_code: int | None = None
    error: str | None = None
    phases: dict[str, float] = field(default_factory=dict)
    steps_lost: int | None = None
    lost_s: float = 0.0
    resumed_step: int | None = None
    source: str | None = None
    is_over: bool = False
    replaced_s: float | None = None

    @property
    def down_s(self) -> float:
        """Seconds without training: from the last sign of progress, if it was a hang, to the first step after it."""
        return sum(self.phases.values())

    @property
    def cost_s(self) -> float:
        """Seconds that would have been productive without it."""
        return self.down_s + self.lost_s

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {**asdict(self), "down_s": self.down_s, "cost_s": self.cost_s}


@dataclass(frozen=True)
class Account:
    """How the wall time of a run divides.

    Attributes:
        began, ended: of what is accounted for, in the clock of the tiles; None for a run without any record.
        paused_s: of it, the seconds in which somebody had stopped the run: they belong to no phase.
        tiles: the time in order.
        failures: in order.
        steps: completed steps that count.
    """

    began: float | None
    ended: float | None
    paused_s: float
    tiles: tuple[Tile, ...]
    failures: tuple[Failure, ...]
    steps: int

    @property
    def wall_s(self) -> float:
        """Seconds from the beginning to the end, pauses left out."""
        return 0.0 if self.began is None or self.ended is None else self.ended - self.began - self.paused_s

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase, in the order of `PHASES`, without those that did not occur; they add up to `wall_s`."""
        totals: dict[str, float] = {}
        for tile in self.tiles:
            for phase, seconds in tile.seconds().items():
                totals[phase] = totals.get(phase, 0.0) + seconds
        return {phase: totals[phase] for phase in PHASES if totals.get(phase)}

    @property
    def goodput(self) -> float | None:
        """The share of the wall time that went into steps that count, 0 to 1; None without any time."""
        return self.seconds.get(PRODUCTIVE, 0.0) / self.wall_s if self.wall_s > 0 else None

    @property
    def interruptions(self) -> tuple[Failure, ...]:
        """The failures after which the training had to be taken up again."""
        return tuple(failure for failure in self.failures if failure.cause != REPLACEMENT)

    @property
    def replacements(self) -> int:
        """Members that were lost while their generation went on."""
        return len(self.failures) - len(self.interruptions)

    @property
    def steps_lost(self) -> int:
        """Over all failures."""
        return sum(failure.steps_lost or 0 for failure in self.failures)

    @property
    def failure_cost_s(self) -> float:
        """Seconds that the failures cost, the work that they destroyed included."""
        return sum(failure.cost_s for failure in self.failures)

    def to_json(self) -> dict[str, Any]:
        """All but the tiles, as one JSON object."""
        return {
            "wall_s": self.wall_s,
            "paused_s": self.paused_s,
            "goodput": self.goodput,
            "seconds": self.seconds,
            "steps": self.steps,
            "steps_lost": self.steps_lost,
            "failure_cost_s": self.failure_cost_s,
            "replacements": self.replacements,
            "failures": [failure.to_json() for failure in self.failures],
        }
