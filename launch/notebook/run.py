"""A run as an object: its records, its model, and how it looks in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.config import config_of_run
from launch.notebook.curves import draw_curves
from launch.notebook.errors import RunError, run_error
from launch.run_lookup import run_named
from launch.run_status import RunStatus, read_status
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics
from trainer.observe.number_text import format_count, format_number
from trainer.report.markup import element
from trainer.run_folder import RunFolder

if TYPE_CHECKING:
    import keras
    import pandas

    from trainer.session import Session


class Run:
    """A run in its folder, whoever trained it: `train`, `phalanx train`, or another machine.

    Nothing is read before it is asked for, and records are read anew each time, so a run that goes on elsewhere can be
    watched.

    Args:
        folder: of the run, or its name in runs/.

    Attributes:
        folder: where everything about it is.

    Raises:
        RunError: there is no such run.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            self._run: RunFolder = run_named(str(folder))
        except Exception as error:
            raise run_error(error) from None
        self.folder: Path = self._run.path

    @property
    def status(self) -> RunStatus:
        """How far it is, and where its time went."""
        return read_status(self.folder)

    @property
    def state(self) -> str:
        """finished, stopped, failed, interrupted or running."""
        return self.status.state

    @property
    def step(self) -> int:
        """Steps done, as far as they are logged."""
        return self.status.step

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl: one a logged step, and with `split` one an evaluation."""
        return read_metrics(self._run.metrics)

    def frame(self) -> pandas.DataFrame:
        """The same as a table of pandas, where that is installed."""
        import pandas

        return pandas.DataFrame(self.metrics)

    @property
    def model(self) -> keras.Model:
        """The model, with the weights of the newest checkpoint. Loaded when it is first asked for.

        Raises:
            RunError: the run has no checkpoint.
        """
        return self._session.model

    def evaluate(self) -> dict[str, float]:
        """Measures the model of the newest checkpoint on the held-out data: the loss and the metrics, by name.

        Raises:
            RunError: the run has no checkpoint, or nothing is held out.
        """
        evaluator = self._session.evaluator
        if evaluator is None:
            raise RunError(
                f"{self.folder} measures nothing: set evaluate.every, and data with a held-out part, in a new run"
            )
        return evaluator.measure()

    @cached_property
    def _session(self) -> Session:
        from launch.quiet_start import import_tensorflow

        import_tensorflow()
        from delivery.run_export import restored_session

        try:
            return restored_session(config_of_run(self._run), self._run, "last")
        except Exception as error:
            raise run_error(error) from None

    def __repr__(self) -> str:
        status = self.status
        return f"<run {self.folder}: {status.state}, step {_progress(status)}>"

    def _repr_html_(self) -> str:
        return page_of(self._run)


def page_of(folder: RunFolder, said: Sequence[str] = ()) -> str:
    """What a notebook shows of a run: a line, the curves, the newest evaluation, and sentences for the person."""
    status = read_status(folder.path)
    text = f" {status.state}, step {_progress(status)}"
    if status.evaluation:
        values = [(name, v) for name, v in status.evaluation.items() if name not in ("step", "split", "time")]
        text += f"; {status.evaluation['split']} " + ", ".join(f"{name} {format_number(v)}" for name, v in values)
    return _page(folder, text, read_metrics(folder.metrics), status.total_steps, said)


def page_while_training(folder: RunFolder, said: Sequence[str]) -> str:
    """The same of a run that trains in this process, from what can be read quickly."""
    metrics = read_metrics(folder.metrics)
    totals = [event["total_steps"] for event in read_journal(folder.journal) if "total_steps" in event]
    training = [line for line in metrics if "split" not in line]
    text = " training"
    if training and totals:
        text += (
            f", step {training[-1]['step']} of {totals[-1]}, {format_count(training[-1]['examples_per_s'])} samples/s"
        )
    return _page(folder, text, metrics, totals[-1] if totals else None, said)


def _page(
    folder: RunFolder, text: str, metrics: list[dict[str, Any]], total_steps: int | None, said: Sequence[str]
) -> str:
    head = element("div", element("b", folder.path.as_posix()), text)
    lines = [element("div", line, style="opacity:.75;font-size:12px;white-space:pre-wrap") for line in said]
    return element("div", head, draw_curves(metrics, total_steps), *lines, style="font-family:system-ui,sans-serif")


def _progress(status: RunStatus) -> str:
    return f"{status.step} of {status.total_steps}" if status.total_steps else str(status.step)
