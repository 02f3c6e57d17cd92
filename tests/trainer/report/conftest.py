"""A run folder as training leaves it, written by the real recorders with times and losses made up."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trainer.observe.journal import Journal
from trainer.observe.metrics_log import MetricsLog
from trainer.observe.trace import Trace

STARTED_AT = 1_790_000_000.0
STEP_S = 0.0042

CONFIG = """\
run: {name: mnist, dir: runs}
model: {name: mlp, hidden: [128], activation: relu, dropout: 0.2}
task: {name: classification, label_smoothing: 0.0, top_k: null}
data: {name: mnist_sample, batch_size: 32, shuffle: true, remainder: pad, cache: none, skip_bad_records: 0, augment: []}
train: {steps: null, epochs: 5.0, seed: 0, log_every: 50, steps_per_loop: 50, xla: true, accumulate: 1, ema: null}
optimizer:
  name: adam
  learning_rate: 0.001
  schedule: {name: cosine, warmup: 500st, end_factor: 0.01}
  no_decay: [bias, gamma, beta]
  clip_norm: 1.0
precision: float32
evaluate: {every: 1ep, batch_size: null, ema: false}
checkpoint: {every: 60s, keep: 3, best_metric: accuracy, best_mode: max}
strategy: {name: one_device, devices: null}
warm_start: null
"""

ENVIRONMENT = {
    "host": "workbench",
    "platform": "Linux-6.1.0-18-amd64-x86_64-with-glibc2.36",
    "cpu": {"model": "AMD EPYC 7B13", "cores": 2, "memory": "24.0 GiB"},
    "versions": {"python": "3.11.7", "phalanx": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"},
    "git": {"commit": "4f2a9d1c7be03c5d8a6f0e2b9417ac35d8e6f102", "dirty": False},
}


@dataclass
class ExampleRun:
    """A run in the making: `train` goes on for some steps, `die` and `pause` leave gaps."""

    folder: Path
    ranks: int = 1
    log_every: int = 50
    nan_from: int | None = None
    now: float = STARTED_AT
    generation: int = -1
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    def start(self, step: int = 0) -> None:
        self.generation += 1
        path = self.folder / "journal.jsonl"
        self.journal = Journal(path, self.generation, clock=lambda: self.now)
        self.metrics = MetricsLog(self.folder / "metrics.jsonl")
        self.metrics.truncate_after(step if step else None)
        self.traces = [Trace(self.folder / "trace" / f"{rank}.jsonl", rank) for rank in range(self.ranks)]
        if step:
            self.journal.write("resumed", step=step, pid=4100 + self.generation, host="workbench")
        else:
            self.journal.write("started", pid=4100, host="workbench", parameters=101_770)
        self.spend("startup", 2.4)

    def spend(self, phase: str, seconds: float, step: int | None = None) -> None:
        for trace in self.traces:
            trace.add(phase, self.now, seconds * self.dice.uniform(0.93, 1.0), step)
        self.now += seconds

    def train(self, first: int, last: int, evaluate_every: int = 625, save_every: int = 1000) -> None:
        for step in range(first + self.log_every, last + 1, self.log_every):
            began = self.now
            self.spend("data", self.dice.uniform(0.001, 0.004), step)
            self.spend("step", self.log_every * STEP_S * self.dice.uniform(0.95, 1.2), step)
            if step // evaluate_every != (step - self.log_every) // evaluate_every:
                self.evaluate(step)
            if step // save_every != (step - self.log_every) // save_every:
                self.save(step)
            self.log(step, self.now - began)

    def log(self, step: int, seconds: float) -> None:
        loss = (2.3 * math.exp(-step / 400) + 0.35 * math.exp(-step / 2500)) * self.dice.lognormvariate(0, 0.22)
        if self.nan_from is not None and step >= self.nan_from:
            loss = math.nan
        rate = 0.001 * min(1.0, step / 500) * (0.505 + 0.495 * math.cos(math.pi * step / 6250))
        self.metrics.append(
            {
                "step": step,
                "loss": loss,
                "accuracy": max(0.0, min(1.0, 1 - 0.3 * loss - self.dice.uniform(0, 0.03))) if loss == loss else 0.1,
                "learning_rate": rate,
                "examples": 32 * step,
                "examples_per_s": 32 * self.log_every / seconds,
                "data_wait": self.dice.uniform(0.002, 0.02),
                "time": self.now,
            }
        )

    def evaluate(self, step: int) -> None:
        self.spend("evaluate", 0.4, step)
        loss = 2.1 * math.exp(-step / 400) + 0.12 + 0.3 * math.exp(-step / 2500)
        accuracy = 0.957 - 0.6 * math.exp(-step / 500) - 0.03 * math.exp(-step / 2500)
        self.metrics.append({"step": step, "split": "test", "loss": loss, "accuracy": accuracy, "time": self.now})
        self.journal.write("evaluated", step=step, split="test")

    def save(self, step: int, keep: int = 3) -> None:
        self.spend("checkpoint", 0.03, step)
        folder = self.folder / "checkpoints"
        path = folder / f"step-{step:08d}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "arrays.safetensors").write_bytes(bytes(12_345))
        (path / "manifest.json").write_text("{}")
        self.journal.write("checkpoint_saved", step=step, bytes=12_347, duration=0.021, stall=0.0004)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()

    def end(self, event: str | None = None, **fields: object) -> None:
        """Leaves with an event, or without one like a killed process."""
        if event:
            self.journal.write(event, **fields)
        for part in (self.metrics, self.journal, *self.traces):
            part.close()

    def describe(self) -> None:
        (self.folder / "config.yaml").write_text(CONFIG)
        (self.folder / "environment.json").write_text(json.dumps(ENVIRONMENT))


def eventful_run(folder: Path) -> ExampleRun:
    """Killed once, damaged once, stopped over night, then finished: 6,250 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    run = ExampleRun(folder)
    run.describe()
    run.start()
    run.train(0, 2300)
    run.end()
    run.now += 6.0
    run.start(step=2000)
    run.train(2000, 4200)
    damaged = folder / "checkpoints" / "step-00003000"
    run.journal.write(
        "checkpoint_damaged", step=3000, file="arrays.safetensors", rule="sha256 differs from the manifest"
    )
    damaged.rename(damaged.with_name("damaged-step-00003000"))
    run.save(4200)
    run.end("stopped", step=4200, reason="SIGINT")
    run.now += 11.4 * 3600
    run.start(step=4200)
    run.train(4200, 6250)
    run.evaluate(6250)
    run.spend("export", 1.1)
    run.journal.write("exported", path="export/1", largest_difference=2.4e-7)
    run.end("finished", step=6250)
    return run


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """The folder of `eventful_run`."""
    return eventful_run(tmp_path / "mnist").folder


@pytest.fixture
def example_run(tmp_path: Path) -> Callable[..., ExampleRun]:
    """Makes an empty run folder's `ExampleRun`; its options as keywords."""

    def make(name: str = "example", **options: object) -> ExampleRun:
        folder = tmp_path / name
        folder.mkdir()
        return ExampleRun(folder, **options)  # type: ignore[arg-type]

    return make
