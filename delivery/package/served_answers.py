"""What the exported model answers to real samples, sent as an application would send them.

Shape legend: B batch, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from delivery.serving_module import DEFAULT_SIGNATURE, ServedModel
from trainer.data.source import Source
from trainer.tasks.task import Batch, Task

MOST_SAMPLES = 2000
_CHUNK = 250
_FIRST_CHUNK = 64
LIMIT_S = 4.0  # of one pass: an export must not wait for a large model on a slow machine


@dataclass(frozen=True)
class Answered:
    """Samples with what the model answered.

    Attributes:
        batch: As the source gave them.
        raw: What was sent, [B, ...] by input.
        answers: What came back, [B, ...] by output.
    """

    batch: Batch
    raw: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]

    @property
    def bytes(self) -> int:
        """Of what was sent and came back."""
        return sum(values.nbytes for side in (self.raw, self.answers) for values in side.values())

    def __len__(self) -> int:
        return len(next(iter(self.raw.values())))


def ask(
    loaded: Any, served: ServedModel, task: Task, source: Source, most: int = MOST_SAMPLES, limit_s: float = LIMIT_S
) -> Iterator[Answered]:
    """Sends samples from all over a source to the loaded model, some at a time: one batch, then more until `limit_s`.

    Which samples these are follows from the length of the source alone; fewer are the first of the same ones.
    """
    total = source.schema.num_samples
    spread = np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))
    index = np.random.default_rng(0).permutation(spread)
    end = time.monotonic() + limit_s
    place = 0
    while place < len(index) and (place == 0 or time.monotonic() < end):
        size = _CHUNK if place else _FIRST_CHUNK
        batch = source.read(tf.constant(index[place : place + size]))
        place += size
        if (answered := _answered(loaded, served, task, batch)) is not None:
            yield answered


def _answered(loaded: Any, served: ServedModel, task: Task, batch: Batch) -> Answered | None:
    if "sample_weight" in batch:
        is_kept = np.asarray(batch["sample_weight"]) > 0
        if not is_kept.any():
            return None
        batch = {name: tf.boolean_mask(values, is_kept) for name, values in batch.items()}
    inputs = task.inputs(batch)
    named = inputs if isinstance(inputs, Mapping) else {next(iter(task.input_features)): inputs}
    raw = {name: given.encode(np.asarray(named[name])) for name, given in served.inputs_of[DEFAULT_SIGNATURE].items()}
    answers = loaded.signatures[DEFAULT_SIGNATURE](**{name: tf.constant(values) for name, values in raw.items()})
    return Answered(batch, raw, {name: values.numpy() for name, values in answers.items()})
