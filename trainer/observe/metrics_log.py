"""`metrics.jsonl`: one object a logged step and one an evaluation; never two for one step, whatever was killed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.observe.json_lines import JsonLines, read_lines


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; an evaluation is a line with `split`."""
    return [line for line in read_lines(path) if isinstance(line.get("step"), int)]


class MetricsLog:
    """Appends to `metrics.jsonl`.

    A training line has `step`, `loss`, the task's metrics, `learning_rate`, `examples`, `examples_per_s`, `data_wait`
    (share of the wall time, 0 to 1) and `time` (seconds since the epoch); an evaluation has `step`, `split`, `loss`,
    the metrics and `time`. Floats are written with as many digits as it takes to read back the same bits: a float32
    as the float64 it equals.

    Args:
        path: the file, created with its folder.
        on_failure: hears of the first failed write of a spell; the lines are written later when the disk allows.
    """

    def __init__(self, path: Path, on_failure: Callable[[OSError], None] | None = None) -> None:
        self.path = path
        self._lines = JsonLines(path, on_failure)

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one line; a reader sees it at once and a kill cannot take it back."""
        self._lines.append(record)

    def truncate_after(self, step: int | None) -> int:
        """Drops, atomically, the lines of steps after `step` and a torn last line.

        Called on resume with the restored step, so that the steps which are trained again are not drawn twice.

        Args:
            step: the last step to keep; None drops everything, which is the start without a checkpoint.

        Returns:
            The number of lines dropped.
        """
        return self._lines.rewrite(lambda line: step is not None and line.get("step", step + 1) <= step)

    def sync(self) -> None:
        """Puts the lines on the disk, before a checkpoint that counts on them becomes visible. Raises OSError."""
        self._lines.sync()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._lines.close()
