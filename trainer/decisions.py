"""What happens at a boundary of the loop, decided alike by all workers of a group."""

from __future__ import annotations

from trainer.due import Due
from trainer.saving import Saver
from trainer.stop_request import StopRequest
from trainer.strategies.strategy import NUM_VOTES, Agreement

_STOP, _EVALUATE, _SAVE, _READY, _LONGER, _SHORTER = range(NUM_VOTES)


class Decisions:
    """Answers the loop's questions at a boundary.

    A process alone looks at its clock, its signals and its writer right there. Workers of a group go by what they all
    said before the last call of the inner loop: any of them may stop the run, the chief's clock counts, and the
    chief's writer must be ready. So a wish is fulfilled one call later, at the same step everywhere. The interval of
    snapshots changes in the same way, by one rung a call: the calls that follow end at the same steps everywhere.

    Args:
        agreement: Of the group; None for a process alone.
        is_chief: Whether this worker's clock and writer count.
        stop: This worker's.
        evaluation_due: This worker's.
        saver: This worker's.

    Attributes:
        is_chief: As given; it changes where the chief's place is taken over.
    """

    def __init__(
        self, agreement: Agreement | None, is_chief: bool, stop: StopRequest, evaluation_due: Due, saver: Saver
    ) -> None:
        self._agreement, self.is_chief = agreement, is_chief
        self._stop, self._evaluation_due, self._saver = stop, evaluation_due, saver
        self._counted: list[bool] | None = None if agreement is None else [False] * NUM_VOTES

    def before_call(self) -> None:
        """Says what this worker wants; called before each call of the inner loop."""
        if self._agreement is not None:
            chief = self.is_chief
            votes = [False] * NUM_VOTES
            votes[_STOP] = bool(self._stop)
            votes[_EVALUATE] = chief and self._evaluation_due.time_is_up
            owes = self._saver.gathers and self._saver.due.is_owed
            votes[_SAVE] = chief and (self._saver.due.time_is_up or owes)
            votes[_READY] = chief and self._saver.ready
            wish = self._saver.snapshot_interval.wish if chief else 0
            votes[_LONGER], votes[_SHORTER] = wish > 0, wish < 0
            self._agreement.cast(votes)

    def after_call(self) -> None:
        """Hears what all workers wanted; called after each call of the inner loop."""
        interval = self._saver.snapshot_interval
        if self._agreement is not None:
            self._counted = self._agreement.counted()
            interval.move(self._counted[_LONGER] - self._counted[_SHORTER])
        else:
            interval.move(interval.wish)

    def hear(self) -> None:
        """Hears what the members of a group wanted that this worker has joined; its interval it has with the state."""
        if self._agreement is not None:
            self._counted = self._agreement.counted()

    @property
    def stops(self) -> bool:
        """Whether the run ends here, before its last step."""
        return bool(self._stop) if self._counted is None else self._counted[_STOP]

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after `step` steps."""
        if self._counted is None:
            return self._evaluation_due.reached(step)
        return self._evaluation_due.reached(step, self._counted[_EVALUATE])

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due and can be taken; one that cannot is put off to the next boundary."""
        if self._counted is None:
            due, ready = self._saver.due.reached(step), self._saver.ready
        elif self._saver.gathers:
            # All take part, also one that has just joined: nothing counts that only some of them remember.
            due, ready = self._saver.due.falls_on(step) or self._counted[_SAVE], self._counted[_READY]
        else:
            due, ready = self._saver.due.reached(step, self._counted[_SAVE]), self._counted[_READY]
        if due and not ready:
            self._saver.due.put_off()
        return due and ready
