"""Turns: one contender works while the others wait on a pipe.

The parent writes a number of seconds; the worker takes steps until that time is over, answers with one line of JSON on
its standard output, and waits for the next number. It ends with its input, so also when the parent dies.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

Figures = dict[str, Any]
_END_S = 20.0
_LOG_TAIL = 2000  # characters


class Turns:
    """The worker's side: told of every boundary between two calls, says whether to go on.

    Args:
        batch_size: Samples of a step.
        warm_up_steps: Length of the first turn, which is not timed: tracing and compiling fall into it.
        warmed_up: Figures to answer the first turn with.
        words: Where the parent's numbers come from.
        answers: Where to answer.
        end: Figures to add to a turn's, given its seconds; called outside of the measured time.
    """

    def __init__(
        self,
        batch_size: int,
        warm_up_steps: int,
        warmed_up: Callable[[], Figures],
        words: TextIO,
        answers: TextIO,
        end: Callable[[float], Figures] = lambda seconds: {},
    ) -> None:
        self._batch_size, self._warm_up_steps, self._warmed_up = batch_size, warm_up_steps, warmed_up
        self._words, self._answers, self._end = words, answers, end
        self._is_warm = False
        self._turn_s = self._since = 0.0
        self._first = 0

    def boundary(self, step: int) -> bool:
        """Whether to go on, after `step` steps in all; returns in time for the next turn if this one is over."""
        if self._is_warm:
            seconds = time.perf_counter() - self._since
            if seconds < self._turn_s:
                return True
            speed = (step - self._first) * self._batch_size / seconds
            return self._next(step, {"samples_per_s": speed, **self._end(seconds)})
        if step < self._warm_up_steps:
            return True
        self._is_warm = True
        return self._next(step, self._warmed_up())

    def _next(self, step: int, figures: Figures) -> bool:
        print(json.dumps(figures), file=self._answers, flush=True)
        word = self._words.readline()
        if not word:
            return False
        self._turn_s, self._first, self._since = float(word), step, time.perf_counter()
        return True


class Contender:
    """The parent's side of a worker. It starts at once and warms up; a context manager that ends it.

    Args:
        name: What it is called in the table.
        command: Of the worker.
        log: File for what the worker prints besides its answers.
        environment: Of the worker; None: this process's.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self._command, self._log = name, command, log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=None if environment is None else dict(environment),
            )

    def warmed_up(self) -> Figures:
        """Waits for the end of the warm-up; returns its figures.

        Raises:
            RuntimeError: The worker died.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        raise RuntimeError(
            f"the worker of {self.name!r} ended with code {self._process.wait()}: {' '.join(self._command)}\n"
            + self._log.read_text(errors="replace")[-_LOG_TAIL:]
        )

    def turn(self, seconds: float) -> Figures:
        """Lets it work for about so long, at least one call; returns the figures of the turn.

        Raises:
            RuntimeError: The worker died.
        """
        self.tell(seconds)
        return self.warmed_up()

    def tell(self, word: object) -> None:
        """Says how much to do next; `warmed_up` waits for the answer."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # its end shows in the missing answer
            print(word, file=self._process.stdin, flush=True)

    def hold(self) -> None:
        """Stops the process between two turns, for one whose threads go on when it waits."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undoes `hold`."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends the worker by ending its input, and kills it if it does not listen; a second call does nothing."""
        assert self._process.stdin and self._process.stdout
        self.go_on()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *exception: object) -> None:
        # After an error nothing of the worker is wanted, and it may be far from its next boundary.
        if exception[0] is not None:
            self._process.kill()
        self.close()
