"""What a run says in the terminal while it trains: one live line, or plain lines where there is no terminal."""

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live as RichLive
from rich.text import Text

from trainer.observe.number_text import format_count, format_duration, format_number

_log = logging.getLogger(__name__)

REFRESH_INTERVAL_S = 0.25
RATE_WINDOW_S = 30.0


def is_progress(line: str) -> bool:
    """Whether a printed line says how far the run is, and no more: the next one replaces it.

    >>> is_progress("step  50/625  loss 0.9982"), is_progress("[0] step 50/625  test  loss 0.3"), is_progress("done")
    (True, True, False)
    """
    return re.match(r"(\[\d+\] )?step +\d+", line) is not None


class Rate:
    """Steps a second over the last half minute, pauses for evaluation and checkpoints included: what an ETA needs.

    The time before the first mark is left out, since the first steps wait for tracing and compilation.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def advance(self, step: int, now: float) -> float:
        """Notes that `step` steps are done at `now`; returns steps a second, 0 at the first mark."""
        self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_WINDOW_S:
            del self._marks[0]
        began, first = self._marks[0]
        return (step - first) / (now - began) if now > began else 0.0


class Live:
    """The terminal's view of a run.

    On a terminal one line is drawn again at most four times a second, by the caller's own thread inside `update`: no
    timer thread takes time from the step. Elsewhere every update is a plain line, so the log interval is the rate.
    What is shown goes to the log of the process too, where it keeps one.

    Args:
        total_steps: where the run ends; None when it is not known, which leaves out the ETA.
        console: where to; standard output by default.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        total_steps: int | None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_steps
        # In a notebook plain lines as well: what is drawn there is not rich's to say.
        self._console = console or Console(highlight=False, soft_wrap=True, force_jupyter=False)
        self._clock = clock
        self._rate = Rate()
        self._drawn_at = -math.inf
        self._line: Text | None = None
        self._live = RichLive(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        if self._live:
            self._live.start()

    def update(
        self, step: int, metrics: Mapping[str, float], examples_per_s: float, data_wait: float | None = None
    ) -> None:
        """Shows the state after `step` steps.

        Args:
            step: steps done.
            metrics: what to name, in this order: loss first, then the task's metrics.
            examples_per_s: samples a second.
            data_wait: share of the wall time that the step waited for data, 0 to 1.
        """
        now = self._clock()
        steps_per_s = self._rate.advance(step, now)
        if self._live and now - self._drawn_at < REFRESH_INTERVAL_S and step != self._total:
            return
        self._drawn_at = now
        parts = [self._progress(step)]
        parts += [f"{name} {format_number(value)}" for name, value in metrics.items()]
        parts.append(f"{format_count(examples_per_s)} samples/s")
        if data_wait is not None:
            parts.append(f"data {100 * data_wait:.1f}%")
        if self._total is not None and steps_per_s > 0 and step < self._total:
            parts.append(f"ETA {format_duration((self._total - step) / steps_per_s)}")
        self._draw(parts)

    def _progress(self, step: int) -> str:
        if self._total is None:
            return f"step {step}"
        return f"step {step:>{len(str(self._total))}}/{self._total}"

    def _draw(self, parts: list[str]) -> None:
        _log.info("  ".join(parts))
        if not self._live:
            self._console.print("  ".join(parts), markup=False)
            return
        self._line = Text(overflow="ellipsis", no_wrap=True)
        self._line.append(parts[0], style="bold")
        for part in parts[1:]:
            name, _, value = part.partition(" ")
            self._line.append("  ")
            if part.endswith("samples/s"):
                self._line.append(part)
            else:
                self._line.append(name, style="dim").append(f" {value}")
        self._live.update(self._line, refresh=True)

    def evaluation(self, step: int, split: str, metrics: Mapping[str, float], duration_s: float | None = None) -> None:
        """Prints one lasting line for an evaluation."""
        parts = [self._progress(step), split]
        parts += [f"{name} {format_number(value)}" for name, value in metrics.items()]
        if duration_s is not None:
            parts.append(f"({format_duration(duration_s)})")
        self.message("  ".join(parts))

    def message(self, text: str, style: str | None = None) -> None:
        """Prints a lasting line, above the live one where there is one."""
        _log.info(text)
        self._console.print(Text(text, style=style or ""))

    def close(self) -> None:
        """Leaves the last state of the live line on the screen; a second call does nothing."""
        if self._live:
            self._live.stop()
            self._live = None

    def __enter__(self) -> "Live":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
