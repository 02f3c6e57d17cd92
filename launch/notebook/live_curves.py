"""What a run shows while it trains in a notebook: its curves as they grow, and the sentences for people."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from launch.notebook.run import page_of, page_while_training
from trainer.observe.live import is_progress
from trainer.run_folder import RunFolder

# The next drawing waits half a second, or so many times what the last one took, which is long for a long run.
_REDRAWN_S, _REDRAWN_TIMES = 0.5, 50


@contextmanager
def shown_live(path: Path) -> Iterator[None]:
    """Draws the curves instead of the lines that a run prints, where this is a notebook; does nothing elsewhere."""
    display = _display()
    if display is None:
        yield
        return
    drawing = _Drawing(RunFolder(path), display)
    try:
        with redirect_stdout(drawing):
            yield
    except BaseException:
        if drawing.is_shown:
            drawing.show_end()
        raise
    drawing.show_end()


def _display() -> Any:
    """IPython's function that shows something, in a notebook; None in a terminal or without IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # Terminals have a shell without a kernel, and show no HTML.
    return ipython.display if ipython is not None and getattr(shell, "kernel", None) is not None else None


class _Drawing(io.TextIOBase):
    """Takes the place of standard output. Lines come from the thread that trains, so no other one takes its time."""

    def __init__(self, folder: RunFolder, display: Any) -> None:
        self._folder, self._display = folder, display
        self._shown: Any = None
        self._line = ""
        self._said: list[str] = []
        self._next_s = time.monotonic() + _REDRAWN_S

    def write(self, text: str) -> int:
        """Keeps the sentences; every line is an occasion to draw."""
        *lines, self._line = (self._line + text).split("\n")
        self._said += [line for line in lines if line.strip() and not is_progress(line)]
        if lines and time.monotonic() >= self._next_s:
            began = time.monotonic()
            self._show(page_while_training(self._folder, self._said))
            ended = time.monotonic()
            self._next_s = ended + max(_REDRAWN_S, _REDRAWN_TIMES * (ended - began))
        return len(text)

    def show_end(self) -> None:
        """Shows the run as it is now."""
        self._show(page_of(self._folder, self._said))

    @property
    def is_shown(self) -> bool:
        """Whether there is anything to see. A run that is refused at once is its error alone."""
        return self._shown is not None

    def _show(self, page: str) -> None:
        if self._shown is None:
            self._shown = self._display.display(self._display.HTML(page), display_id=True)
        else:
            self._shown.update(self._display.HTML(page))
