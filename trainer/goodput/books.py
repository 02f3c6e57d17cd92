"""The books of a run: the wall time in phases, the steps that count, and the failures with what each of them cost."""

from collections.abc import Mapping
from typing import Any

from trainer.goodput.account import Account, Failure
from trainer.goodput.phases import DOWN, LOST, OF_A_FAILURE, REPEATED
from trainer.goodput.progress import StepTimes
from trainer.goodput.timeline import Timeline

Record = Mapping[str, Any]
# The members saved all that they had done before they ended.
_PLANNED = ("preemption", "resize")


class Books:
    """What both kinds of run have in common: one that a supervisor watches, and a process that trains alone.

    Attributes:
        timeline: what is told so far.
        failures: in order.
        restarts: how many generations followed an interruption, by its cause.
        mending: the interruption after which no step has been completed yet.
        reason: why the last process that trained alone failed, as it said; None: it did not say.
    """

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.failures: list[Failure] = []
        self.restarts: dict[str, int] = {}
        self.reason: str | None = None
        self._steps = StepTimes()
        self.mending: Failure | None = None
        self._outcome: str | None = None

    @property
    def steps(self) -> int:
        """Completed steps that count."""
        return self._steps.best

    def launched(self, at: float, reason: str = "the launching process ended", generation: int = 0) -> None:
        """A launch begins: of a supervisor, or of a process that trains alone.

        Args:
            at: when.
            reason: what ended the last one, unless somebody wished it.
            generation: the last one of that launch.
        """
        if self.timeline.end is not None and self._outcome in ("stopped", "finished"):
            self.timeline.skip(at)
        elif self.timeline.end is not None:
            self.interrupted(Failure(self.timeline.end, generation, "launcher", reason))
            self.failures[-1].phases[DOWN] = self.timeline.extend(at, DOWN)
        self.timeline.begin(at)
        self._outcome = None

    def ended(self, outcome: str) -> None:
        """A launch is over: "finished" or "stopped" as somebody wished, else something went wrong."""
        self._outcome = outcome

    def spend(self, at: float, phase: str) -> None:
        """The time until then goes to a phase, and to the failure that is being mended if the phase is one of those."""
        added, failure = self.timeline.extend(at, phase), self.mending
        if added and failure is not None and phase in OF_A_FAILURE:
            failure.phases[phase] = failure.phases.get(phase, 0.0) + added

    def recovered(self) -> None:
        """Steps are completed again."""
        if self.mending is not None:
            self.mending.is_over, self.mending = True, None

    def goes_on_from(self, step: int, at: float) -> None:
        """Steps are taken from this one on: what was done after it is lost."""
        if (failure := self.mending) is not None:
            failure.resumed_step, failure.steps_lost = step, max(0, self._steps.best - step)
            if failure.steps_lost or failure.cause not in _PLANNED:
                failure.lost_s += self._lose(step, failure.at)
        self._steps.restart(step, at)

    def completed(self, step: int, at: float) -> None:
        """Notes how far the training is."""
        self._steps.add(step, at)

    def rolled_back(self, record: Record, at: float, generation: int = 0) -> None:
        """The chief went back to an earlier step because a loss was not finite."""
        step = record["step"]
        failure = Failure(at, generation, "bad step", str(record.get("reason")), is_over=True, source="memory")
        failure.resumed_step, failure.steps_lost = step, max(0, record.get("from_step", step) - step)
        failure.lost_s = self._lose(step, at)
        self.failures.append(failure)
        self._steps.restart(step, at)

    def account(self) -> Account:
        """What is known so far."""
        tiles = self.timeline.tiles
        return Account(
            tiles[0].start if tiles else None,
            self.timeline.end,
            self.timeline.skipped,
            tuple(tiles),
            tuple(self.failures),
            self._steps.best,
        )

    def interrupted(self, failure: Failure) -> None:
        """The training is interrupted."""
        self.recovered()  # what follows is the later one's
        self.failures.append(failure)
        self.mending = failure

    def _lose(self, step: int, until: float) -> float:
        since = self._steps.time_of(step)
        if since is None:
            if not self.timeline.tiles:
                return 0.0
            since = self.timeline.tiles[0].start
        return self.timeline.relabel(since, until, REPEATED, LOST)
