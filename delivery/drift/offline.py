"""Compares a file of samples with an exported model's training sample."""

from __future__ import annotations

from pathlib import Path

from delivery.drift.monitor import FEWEST, Drift, DriftMonitor
from delivery.drift.training_sample import SamplesUnusable, read_samples, read_training_sample
from delivery.package.training_sample import split_answers

_BATCH = 256


def compare(model: Path, samples: Path) -> tuple[DriftMonitor, Drift]:
    """All samples of the file at once.

    Raises:
        SamplesUnusable: A file is not there or not what it should be, or the samples are too few.
    """
    arrays = read_samples(samples)
    num_samples = len(next(iter(arrays.values())))
    if num_samples < FEWEST:
        raise SamplesUnusable(f"{samples} has {num_samples} samples, and drift takes at least {FEWEST}: give more")
    monitor = DriftMonitor(read_training_sample(model), window=num_samples)
    for start in range(0, num_samples, _BATCH):
        part = {name: values[start : start + _BATCH] for name, values in arrays.items()}
        monitor.observe(*split_answers(part))
    found = monitor.check()
    if not found.scores:
        wanted = ", ".join(list(monitor.references)[:5])
        raise SamplesUnusable(f"{samples} has no array of the training sample's names: give {wanted}")
    return monitor, found
