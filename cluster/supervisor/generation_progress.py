"""How far each member of one generation is. Noting a report costs the same however many members there are."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from cluster.supervisor.facts import Death

_REMEMBERED_INTERVALS = 101
_ENOUGH_INTERVALS = 3
# A new report's weight in a member's average time for a step.
_NEWEST_WEIGHT = 0.2
_ENOUGH_REPORTS = 10
_REMEMBERED_REPORTS = 21


@dataclass(slots=True)
class MemberProgress:
    """How far one member is.

    Attributes:
        at: when it last made progress: completed a step, or entered another phase.
        step: completed steps; -1 before its first report.
        phase: the phase of its last report; "form" before the first, "serve" when it makes no progress of its own.
        arrived: steps for which it has done its own part; the others may wait for it in the next one.
        own_s: seconds that these took it.
        own_step_s: seconds a step in each of the newest reports of those.
        step_s: its own average seconds for a step; None before it has reported two steps.
        reports: how many reports that average is made of.
    """

    at: float
    step: int = -1
    phase: str = "form"
    arrived: int = 0
    own_s: float = 0.0
    own_step_s: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_REPORTS))
    step_s: float | None = None
    reports: int = 0


class StepIntervals:
    """The newest intervals between two reports of steps by the same member, over the whole run."""

    def __init__(self) -> None:
        self._intervals: deque[float] = deque(maxlen=_REMEMBERED_INTERVALS)

    def add(self, seconds: float) -> None:
        """Adds an interval."""
        self._intervals.append(seconds)

    def median_s(self) -> float | None:
        """The median in seconds; None while there are too few."""
        return median(self._intervals) if len(self._intervals) >= _ENOUGH_INTERVALS else None


class GenerationProgress:
    """How far the members of one generation are.

    Attributes:
        members: by the worker's name, in the order of their ranks.
        completed: the members that are done with the training.
        left: the members that exited with code 0 without having said that they are done: when, and how they died.
        start_step: the step from which the generation went on; None while nobody has said.
        best_step: the highest step a member reported; -1 before the first report.
        stepped: whether a member has completed a step beyond `start_step`.
        settled_at: when a member last left a phase other than "step": until then the others may have waited for it.
        slow: the members that have been called stragglers.
    """

    def __init__(self, workers: Iterable[str], now: float) -> None:
        self.members = {worker: MemberProgress(now) for worker in workers}
        self.completed: dict[str, None] = {}
        self.left: dict[str, tuple[float, Death]] = {}
        self.start_step: int | None = None
        self.best_step = -1
        self.stepped = False
        self.settled_at = now
        self.slow: dict[str, None] = {}

    def report(self, worker: str, at: float, step: int, phase: str, intervals: StepIntervals) -> None:
        """Notes a member's report."""
        member = self.members[worker]
        if at < member.at:  # it was overtaken by a later one
            return
        if phase not in ("build", "restore", "serve"):  # in these the step says nothing
            if self.start_step is None:
                self.start_step = step
            if step > self.best_step:
                self.best_step = step
                self.stepped = step > self.start_step
        if member.phase == phase == "step":
            if step > member.step:
                self._time(member, at, step, intervals)
        elif member.phase != "step":
            self.settled_at = max(self.settled_at, at)
        if step > member.step or phase != member.phase:
            member.at, member.step, member.phase = at, max(step, member.step), phase

    def do_own_part(self, worker: str, arrived: int, own_s: float) -> None:
        """Notes for how many steps a member has done its own part in all, and how long that took it."""
        member = self.members.get(worker)
        if member is None or arrived <= member.arrived:
            return
        if not member.arrived:  # what is known of it so far it may have waited or compiled
            member.step_s, member.reports = None, 0
        else:
            member.own_step_s.append((own_s - member.own_s) / (arrived - member.arrived))
            # The median, because evaluations and what else comes between two steps fall into some of the reports.
            member.step_s, member.reports = median(member.own_step_s), len(member.own_step_s)
        member.arrived, member.own_s = arrived, own_s

    def replace(self, old: str, new: str | None, now: float) -> None:
        """A member is gone from the generation, or another has come. The rest may have waited for it until now.

        Args:
            old: the one that is gone.
            new: the one that has its place now; None: nobody yet.
        """
        self.members.pop(old, None)
        self.left.pop(old, None)
        if new is not None:
            self.members[new] = MemberProgress(now)
        self.settled_at = max(self.settled_at, now)

    def stragglers(self, ratio: float | None, floor_s: float = 0.0) -> list[tuple[str, float]]:
        """The members that take at least `ratio` times the median member's time for a step, with their ratios.

        Each is named once a generation; none without a ratio, nor for less than `floor_s` seconds a step.
        """
        times = {
            name: member.step_s
            for name, member in self.members.items()
            if member.step_s is not None and member.reports >= _ENOUGH_REPORTS
        }
        if len(times) < 2 or ratio is None:
            return []
        # The lower median: of two members the slow one must not make the scale.
        usual = sorted(times.values())[(len(times) - 1) // 2]
        slow = [(name, step_s / usual) for name, step_s in times.items() if step_s >= ratio * usual > 0]
        slow = [(name, ratio) for name, ratio in slow if (ratio - 1) * usual >= floor_s]
        news = [(name, ratio) for name, ratio in slow if name not in self.slow]
        self.slow.update(dict.fromkeys(name for name, _ in news))
        return news

    def _time(self, member: MemberProgress, at: float, step: int, intervals: StepIntervals) -> None:
        intervals.add(at - member.at)
        if not member.arrived:  # a member that knows its own part is not measured by what it waited for
            step_s, old = (at - member.at) / (step - member.step), member.step_s
            member.step_s = step_s if old is None else old + _NEWEST_WEIGHT * (step_s - old)
            member.reports += 1
