"""Compares what the served versions are asked and answer with their training samples."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from delivery.drift.monitor import DriftMonitor
from delivery.drift.training_sample import SamplesUnusable, read_training_sample
from delivery.package.training_sample import TRAINING_SAMPLE
from delivery.serving.loaded_model import DEFAULT_SIGNATURE
from delivery.serving.observation import AnsweredBatch

log = logging.getLogger("phalanx.serving")
# A batch costs a few tenths of a millisecond on the thread that computes: at most some 1% of its time.
_NOT_BEFORE_S = 0.02


class DriftWatch:
    """An observer with a monitor for each version whose package carries a training sample."""

    def __init__(self) -> None:
        self._monitors: Mapping[tuple[str, int], DriftMonitor] = {}
        self._looked_at: dict[tuple[str, int], float] = {}

    def monitors(self) -> Mapping[tuple[str, int], DriftMonitor]:
        """By model and version."""
        return self._monitors

    def begin(self, model: str, version: int, folder: Path) -> None:
        """Watches a version, if its folder carries a training sample."""
        if not (folder / TRAINING_SAMPLE).is_file():
            return
        try:
            monitor = DriftMonitor(read_training_sample(folder))
        except SamplesUnusable as error:
            log.warning("drift is not watched: %s", error, extra={"model": model, "version": version})
            return
        # Replaced as a whole: scrapes and batches read it meanwhile on threads of their own.
        self._monitors = {**self._monitors, (model, version): monitor}

    def end(self, model: str, version: int) -> None:
        """Watches a version no more."""
        self._monitors = {key: monitor for key, monitor in self._monitors.items() if key != (model, version)}

    def takes(self, model: str, version: int, signature: str) -> bool:
        """Of the default signature, no more than fifty batches a second of a version."""
        key, now = (model, version), time.monotonic()
        if key not in self._monitors or signature != DEFAULT_SIGNATURE:
            return False
        if now - self._looked_at.get(key, 0.0) < _NOT_BEFORE_S:
            return False
        self._looked_at[key] = now
        return True

    def observe(self, batch: AnsweredBatch) -> None:
        """Takes a batch in."""
        if monitor := self._monitors.get((batch.model, batch.version)):
            monitor.observe(batch.inputs, batch.outputs)
