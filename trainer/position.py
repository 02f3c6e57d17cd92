"""Where a training is in its data: the step, and the windows of batches that roll-backs have skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SkippedWindow:
    """Batches that were left out after a loss that was not finite.

    Attributes:
        step: The step that the run went back to.
        first: First data step that was left out.
        last: Last data step that was left out.
    """

    step: int
    first: int
    last: int


class Position:
    """Maps steps to data steps: the same, but for the windows that were skipped before.

    Args:
        skipped: Windows in the order in which they were skipped, as `as_json` gives them.
    """

    def __init__(self, skipped: Sequence[Mapping[str, int]] = ()) -> None:
        self.skipped = [SkippedWindow(**window) for window in skipped]

    def data_step(self, step: int) -> int:
        """The data step of the step with this 0-based number."""
        return step + sum(window.last - window.first + 1 for window in self.skipped)

    def skip(self, from_step: int, bad_step: int) -> SkippedWindow:
        """Leaves out the batches of the steps `from_step` to `bad_step`, which will be taken with later ones."""
        window = SkippedWindow(from_step, self.data_step(from_step), self.data_step(bad_step))
        self.skipped.append(window)
        return window

    def as_json(self) -> list[dict[str, Any]]:
        """For the checkpoint's metadata."""
        return [asdict(window) for window in self.skipped]
