"""When a member counts as hung, and which one it is that did not arrive."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.supervisor.fleet import Worker
from cluster.supervisor.generation_progress import GenerationProgress
from cluster.supervisor.settings import HangLimits


@dataclass(frozen=True)
class Hang:
    """A member that shows no progress.

    Attributes:
        worker: its name.
        what: what it does instead, for a person: "has made no progress for 31 s at step 480 (30 s allowed)".
    """

    worker: str
    what: str


class MedianHangs:
    """No progress within max(floor, factor x the run's own median interval); every other phase has its own limit."""

    def __init__(self, limits: HangLimits) -> None:
        self._limits = limits
        self._by_phase = {
            "form": limits.form_s,  # until it is over, `find` looks at each member for itself
            "build": limits.restore_s,
            "restore": limits.restore_s,
            "compile": limits.compile_s,
            "evaluate": limits.evaluate_s,
            "checkpoint": limits.checkpoint_s,
            "export": limits.export_s,
        }

    def allowance_s(self, phases: Iterable[str], median_s: float | None) -> float:
        """How long members in these phases may show no progress. One waits for all: the longest limit counts."""
        if median_s is None:  # the first steps of a run may still compile
            step_s = max(self._limits.floor_s, self._limits.compile_s)
        else:
            step_s = max(self._limits.floor_s, self._limits.factor * median_s)
        return max((self._by_phase.get(phase, step_s) for phase in phases), default=step_s)

    def find(
        self,
        progress: GenerationProgress,
        heard_at: Mapping[str, float],
        now: float,
        median_s: float | None,
        watched_from: float,
    ) -> Hang | None:
        """The member that hangs, if one does.

        Args:
            progress: of the generation.
            heard_at: when each member last gave a sign of life.
            now: the time.
            median_s: the run's median interval between two reports of steps, in seconds; None: too few.
            watched_from: nobody was listening before this time.
        """
        through = progress.completed.keys() | progress.left.keys()
        # Of one that serves others only its heartbeats tell whether it lives.
        busy = {name: one for name, one in progress.members.items() if name not in through and one.phase != "serve"}
        if not busy:
            return None
        for name, one in busy.items():
            waited_s = now - max(one.at, watched_from)
            # The others may be allowed much longer, for they compile, or wait for exactly this one.
            if one.phase == "form" and waited_s > self._limits.form_s:
                allowed_s = self._limits.form_s
                return Hang(name, f"has not taken up its part for {waited_s:.0f} s ({allowed_s:.0f} s allowed)")
        allowed = self.allowance_s({one.phase for one in busy.values()}, median_s)
        since = max(min(one.at for one in busy.values()), progress.settled_at, watched_from)
        if now - since <= allowed:
            return None
        # In a synchronous step all the others wait for the one that is behind. When all stand at the same step, it is
        # the one that has not done its own part of it; where that is not counted, one that has gone silent meanwhile
        # is a better guess than the order of the last reports.
        silent_since = (since + now) / 2
        name, one = min(
            busy.items(),
            key=lambda item: (item[1].step, item[1].arrived, heard_at.get(item[0], now) > silent_since, item[1].at),
        )
        phase = "" if one.phase == "step" else f", phase {one.phase}"
        what = f"has made no progress for {now - since:.0f} s at step {one.step}{phase} ({allowed:.0f} s allowed)"
        return Hang(name, what)

    def find_silent(self, workers: Iterable[Worker], now: float, watched_from: float) -> list[Hang]:
        """The ready workers that gave no sign of life, heartbeats included, for too long: they are frozen."""
        return [
            Hang(worker.name, f"has given no sign of life for {now - max(worker.heard_at, watched_from):.0f} s")
            for worker in workers
            if worker.address is not None
            and worker.doomed_at is None
            and now - max(worker.heard_at, watched_from) > self._limits.silent_s
        ]
