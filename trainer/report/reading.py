"""Everything that the report shows, read from the run folder; whatever is missing is empty, never an error."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from trainer.goodput.account import Account
from trainer.goodput.reading import account_of
from trainer.observe.journal import read_journal
from trainer.observe.metrics_log import read_metrics
from trainer.observe.trace import read_trace

_CHECKPOINT = re.compile(r"(damaged-)?step-(\d+)")
_NOT_A_METRIC = {"step", "examples", "examples_per_s", "data_wait", "time", "learning_rate"}


@dataclass(frozen=True)
class SavedCheckpoint:
    """One checkpoint that was written: where it stands now and what it cost."""

    step: int
    state: str  # "kept", "removed", "damaged"
    size: int | None  # bytes
    time: float | None  # seconds since the epoch
    duration: float | None  # seconds that the write took, off the critical path
    stall: float | None  # seconds that the steps waited for it


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it."""

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    training: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    journal: list[dict[str, Any]]
    spans: dict[int, list[dict[str, Any]]]  # by rank
    checkpoints: list[SavedCheckpoint]

    @functools.cached_property
    def account(self) -> Account:
        """Where the wall time went, as far as anything was recorded."""
        return account_of(self.journal, self.spans)

    def training_metrics(self) -> list[str]:
        """The names of the numbers in the training lines, loss first."""
        return _metric_names(self.training)

    def evaluation_metrics(self) -> list[str]:
        """The names of the numbers in the evaluation lines, loss first."""
        return _metric_names(self.evaluations)

    def splits(self) -> list[str]:
        """The evaluated splits in order of appearance."""
        return list(dict.fromkeys(str(line["split"]) for line in self.evaluations))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a field is something to draw; a truth value is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _metric_names(lines: list[dict[str, Any]]) -> list[str]:
    names = {key: None for line in lines for key, value in line.items() if is_number(value)}
    names = {name: None for name in names if name not in _NOT_A_METRIC}
    return [*(["loss"] if "loss" in names else []), *(name for name in names if name != "loss")]


def read_run(run: Path) -> RunRecord:
    """Reads a run folder, of a run that is over, still going, or was killed.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"no run folder at {run}: name the folder that holds metrics.jsonl")
    metrics = read_metrics(run / "metrics.jsonl")
    journal = read_journal(run / "journal.jsonl")
    return RunRecord(
        name=run.resolve().name,
        config=_read_mapping(run / "config.yaml"),
        environment=_read_mapping(run / "environment.json"),
        training=[line for line in metrics if "split" not in line],
        evaluations=[line for line in metrics if "split" in line],
        journal=journal,
        spans=_read_spans(run / "trace"),
        checkpoints=_read_checkpoints(run / "checkpoints", journal),
    )


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_spans(folder: Path) -> dict[int, list[dict[str, Any]]]:
    ranks = sorted(int(path.stem) for path in folder.glob("*.jsonl") if path.stem.isdigit())
    spans = {rank: read_trace(folder / f"{rank}.jsonl") for rank in ranks}
    return {rank: sorted(lines, key=lambda line: line["start"]) for rank, lines in spans.items() if lines}


def _read_checkpoints(folder: Path, journal: list[dict[str, Any]]) -> list[SavedCheckpoint]:
    """Those on the disk and those that the journal remembers, by step."""
    states: dict[int, tuple[str, int]] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if match := _CHECKPOINT.match(path.name):
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            states[int(match[2])] = ("damaged" if match[1] else "kept", size)
    saved = {event["step"]: event for event in journal if event["event"] == "checkpoint_saved" and "step" in event}
    checkpoints = []
    for step in sorted(states.keys() | saved.keys()):
        event = saved.get(step, {})
        state, size = states.get(step, ("removed", None))
        checkpoints.append(
            SavedCheckpoint(
                step,
                state,
                size or event.get("bytes"),
                event.get("time"),
                event.get("duration"),
                event.get("stall"),
            )
        )
    return checkpoints
