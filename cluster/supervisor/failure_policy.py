"""How often a run may fail, be preempted and be resized, how long it waits in between, and which error ends it."""

import re
from dataclasses import dataclass

from cluster.assignment import ErrorReport
from cluster.supervisor.settings import BackOff, Budgets


@dataclass(frozen=True)
class Verdict:
    """What follows a failure or a preemption.

    Attributes:
        goes_on: whether the budget allows another generation.
        delay_s: seconds to wait before it is formed.
        reason: why the run ends, when it does not go on.
    """

    goes_on: bool
    delay_s: float = 0.0
    reason: str = ""


class BudgetedFailures:
    """Separate budgets for failures, preemptions and resizes; back-off when failures follow without progress.

    Attributes:
        failures, preemptions, resizes: how many were spent since the budgets were last as new.
    """

    def __init__(self, budgets: Budgets, back_off: BackOff) -> None:
        self._budgets, self._back_off = budgets, back_off
        self.failures = self.preemptions = self.resizes = 0
        self._in_a_row = 0
        self._best_step = -1
        self._last_at = 0.0
        self._errors: dict[tuple[str, str, int], float] = {}

    def fail(self, now: float, best_step: int) -> Verdict:
        """Spends one failure. `best_step` is the highest step the run ever reported."""
        if best_step > self._best_step:
            self._in_a_row = 1
            self.failures -= min(self.failures, self._earned(now - self._last_at))
        else:
            self._in_a_row += 1
        self._best_step, self._last_at = best_step, now
        self.failures += 1
        limit = self._budgets.failures
        if limit is not None and self.failures > limit:
            return Verdict(
                False, reason=f"{_times(limit, 'failure')} without sustained progress in between are used up"
            )
        return Verdict(True, self._back_off.delay_s(self._in_a_row))

    def _earned(self, seconds: float) -> int:
        """Failures given back for a time with progress: a large fleet never goes long without one."""
        budgets = self._budgets
        return int(seconds / budgets.give_back_after_s * (budgets.failures or 0)) if budgets.give_back_after_s else 0

    def preempt(self, now: float) -> Verdict:
        """Spends one preemption."""
        self._last_at = now
        self.preemptions += 1
        limit = self._budgets.preemptions
        if limit is not None and self.preemptions > limit:
            return Verdict(
                False, reason=f"{_times(limit, 'preemption')} without sustained progress in between are used up"
            )
        return Verdict(True)

    def may_resize(self) -> bool:
        """Whether a generation may be ended to grow."""
        return self._budgets.resizes is None or self.resizes < self._budgets.resizes

    def resize(self, now: float) -> None:
        """Spends one resize."""
        self._last_at = now
        self.resizes += 1

    def is_repeated(self, error: ErrorReport, began_at: float, now: float) -> bool:
        """Whether the user's code fails again the way it did before, at the same step.

        Args:
            error: what the worker reported.
            began_at: when the worker began on its part. Only one that began when the first error was known, and not
                before, met it again: the ranks of one generation raise the same error together.
            now: the time.
        """
        # Addresses differ from process to process: `<Layer object at 0x7f3c...>`.
        key = (error.kind, re.sub(r"0x[0-9a-fA-F]+", "0x", error.message), error.step)
        first_at = self._errors.get(key)
        if first_at is None:
            self._errors[key] = now
        return first_at is not None and first_at <= began_at

    def note_progress(self, now: float, running_since: float, best_step: int) -> None:
        """A generation has run since `running_since`: gives the budgets back when it has lasted."""
        if best_step > self._best_step and now - max(running_since, self._last_at) >= self._budgets.give_back_after_s:
            self.failures = self.preemptions = self.resizes = 0
            self._in_a_row = 0
            self._best_step, self._last_at = best_step, now


def _times(limit: int, what: str) -> str:
    return f"all {limit} allowed {what}s" if limit != 1 else f"the one allowed {what}"
