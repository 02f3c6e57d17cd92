"""Everything that a run records and shows: metrics.jsonl, journal, TensorBoard, trace and the terminal."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from trainer.config.observe import ObserveConfig
from trainer.group import Group
from trainer.observe.journal import Journal, next_generation
from trainer.observe.live import Live
from trainer.observe.metrics_log import MetricsLog, read_metrics
from trainer.observe.profile import ProfileWindow
from trainer.observe.profile_order import ProfileOrder
from trainer.observe.tensorboard import TensorBoardWriter
from trainer.observe.trace import Trace
from trainer.run_folder import RunFolder, RunFolderError

_log = logging.getLogger(__name__)


class Recorder:
    """One place for the loop to report to; each kind of record has its own file.

    In a group every worker has a trace; all other records are the chief's.

    Args:
        folder: Of the run.
        observe: What to record.
        group: Of the workers; None for a process alone.
        profile_order: A wish to see the next steps; None: nobody can ask.

    Attributes:
        is_chief: Whether this process writes the records.
    """

    def __init__(
        self,
        folder: RunFolder,
        observe: ObserveConfig,
        group: Group | None = None,
        profile_order: ProfileOrder | None = None,
    ) -> None:
        self._folder, self._observe = folder, observe
        self._rank = group.rank if group else 0
        self.is_chief = group is None or group.is_chief
        self.generation = group.generation if group else next_generation(folder.journal)
        self.trace = Trace(folder.trace(self._rank), self._rank, self._on_failure)
        self.journal: Journal | None = None
        self.metrics: MetricsLog | None = None
        if self.is_chief:
            self._open_records()
        profiled = observe.profile_steps if self.is_chief else None
        self.profile = ProfileWindow(folder.profile(self._rank), profiled, self.warn, profile_order)
        self._tensorboard: TensorBoardWriter | None = None
        self._live: Live | None = None
        self._is_resumed = False
        self._failures: set[str] = set()

    def move_to(self, group: Group) -> None:
        """Goes on as a member of another group, perhaps as its chief, who then calls `begin`."""
        if group.rank != self._rank:
            self.trace.close()
            self.trace = Trace(self._folder.trace(group.rank), group.rank, self._on_failure)
            self.profile.close()
            self.profile.folder = self._folder.profile(group.rank)
        self._rank, self.is_chief, self.generation = group.rank, group.is_chief, group.generation
        if self.is_chief and self.metrics is None:
            self._open_records()
        elif self.journal is not None:
            self.journal.generation = group.generation

    def last_evaluation(self) -> dict[str, float]:
        """The metrics of the newest evaluation on record, by name."""
        lines = [line for line in read_metrics(self._folder.metrics) if "split" in line]
        return {name: v for name, v in (lines[-1] if lines else {}).items() if name not in ("step", "split", "time")}

    def lacks(self, step: int) -> bool:
        """Whether a window that ends with this step is to be recorded here, and is not."""
        if self.metrics is None:
            return False
        return not any(line["step"] == step and "split" not in line for line in read_metrics(self._folder.metrics))

    def _open_records(self) -> None:
        self.journal = Journal(self._folder.journal, self.generation, self._on_failure)
        self.metrics = MetricsLog(self._folder.metrics, self._on_failure)

    def begin(self, total_steps: int, restored_step: int | None) -> None:
        """Forgets what was recorded after the restored step (None: a fresh start), and opens the terminal's view."""
        self._is_resumed = restored_step is not None
        if self.metrics is None:
            return
        self.metrics.truncate_after(restored_step)
        if self._tensorboard:
            self._tensorboard.close()
        if self._observe.tensorboard:
            self._tensorboard = TensorBoardWriter(self._folder.tensorboard, restored_step, self._on_failure)
        if self._live is None:
            self._live = Live(total_steps)

    def event(self, event: str, **fields: Any) -> None:
        """Writes an event of this process to the journal."""
        if self.journal:
            self.journal.write(event, rank=self._rank, pid=os.getpid(), host=socket.gethostname(), **fields)

    def logged(
        self, step: int, figures: Mapping[str, float], examples: int, examples_per_s: float, data_wait: float
    ) -> None:
        """Records a window of training steps; `figures` begins with the loss."""
        if self.metrics is None:
            return
        line = {"step": step, **figures, "examples": examples}
        self.metrics.append({**line, "examples_per_s": examples_per_s, "data_wait": data_wait, "time": time.time()})
        if self._tensorboard:
            scalars = {f"train/{name}": value for name, value in figures.items()}
            scalars |= {"speed/examples_per_s": examples_per_s, "speed/data_wait": data_wait}
            self._tensorboard.scalars(step, scalars)
        if self._live:
            self._live.update(step, _headline(figures), examples_per_s, data_wait)

    def evaluated(self, step: int, split: str, metrics: Mapping[str, float], duration_s: float) -> None:
        """Records an evaluation."""
        if self.metrics is None:
            return
        self.metrics.append({"step": step, "split": split, **metrics, "time": time.time()})
        self.event("evaluated", step=step, split=split, duration=duration_s, **metrics)
        if self._tensorboard:
            self._tensorboard.scalars(step, {f"{split}/{name}": value for name, value in metrics.items()})
        if self._live:
            self._live.evaluation(step, split, _headline(metrics), duration_s)

    def histograms(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the distribution of each array."""
        if self._tensorboard:
            self._tensorboard.histograms(step, values)

    def graph(self, concrete_function: Callable[[], Any]) -> None:
        """Records the graph of the inner loop, once a run: whoever resumes has it already and shall go on."""
        if self._tensorboard and not self._is_resumed:
            self._tensorboard.graph(concrete_function().graph.as_graph_def().SerializeToString())

    def sync(self) -> None:
        """Puts the records on the disk, before a checkpoint that counts on them becomes visible. Raises OSError."""
        if self.metrics:
            self.metrics.sync()

    def strategy(self, facts: Mapping[str, str], why: str | None) -> None:
        """Notes which strategy the run has, and says why where that was left open."""
        if not self.is_chief:
            return
        try:
            self._folder.add_to_environment(strategy=dict(facts))
        except RunFolderError as error:
            self._on_failure(error)
        if why:
            self.say(why)

    def say(self, text: str) -> None:
        """Prints a lasting line; the other workers of a group would only repeat the chief's."""
        if self._live:
            self._live.message(text)
        elif self.is_chief:
            _log.info(text)
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Prints a lasting line that stands out."""
        if self._live:
            self._live.message(text, style="yellow")
        else:
            _log.info(text)
            print(text, flush=True)

    def close(self) -> None:
        """Writes what is left and closes every file."""
        self.profile.close()
        for part in (self._live, self._tensorboard, self.trace, self.metrics, self.journal):
            if part:
                part.close()

    def _on_failure(self, error: Exception) -> None:
        """Recording must not end training: each kind of failure is said once."""
        reason = str(error)
        if reason not in self._failures:
            self._failures.add(reason)
            self.warn(f"a record of the run could not be written ({reason}): free space or check the run folder")


def _headline(figures: Mapping[str, float]) -> dict[str, float]:
    """The loss and the first metric: what fits on a line."""
    shown = {}
    for name, value in figures.items():
        if name not in ("learning_rate", "gradient_norm", "skipped_steps", "bytes_per_step"):
            shown[name] = value
        if len(shown) == 2:
            break
    return shown
