"""Watches one version of a served model: takes answered batches in, says what has drifted.

Shape legend: B batch, W window.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from delivery.drift.adwin import Adwin
from delivery.drift.columns import PREDICTION, columns_of
from delivery.drift.scores import ColumnReference, Score, score

WINDOW = 1000
"""Newest samples that are compared with the training sample."""

FEWEST = 200
"""Samples before which nothing is judged."""

CHANCE = 1e-3
"""Accepted probability of a false alarm of one check, over all its columns and tests together."""

_BLOCK = 4  # samples whose mean rank is one value of ADWIN's stream; many more would hide a change in its bounds
_MOST_ROWS = 256  # of a batch that are looked at; the rest is counted


@dataclass(frozen=True)
class Drift:
    """What one check found.

    Attributes:
        num_seen: Samples since the monitor began.
        num_compared: Of the newest, how many were compared.
        scores: By column; empty before `FEWEST` samples.
        changes: By column, how often ADWIN saw the stream change since the monitor began.
        missing: Columns of the training sample that no request has; those that requests have and it has not are
            not looked at.
    """

    num_seen: int
    num_compared: int
    scores: Mapping[str, Score]
    changes: Mapping[str, int]
    missing: tuple[str, ...]

    @property
    def alarms(self) -> list[str]:
        """The columns that have drifted, the furthest first."""
        found = [name for name, one in self.scores.items() if one.alarm]
        return sorted(found, key=lambda name: -self.scores[name].psi)


class DriftMonitor:
    """Compares the newest samples with the training sample, in memory that does not grow.

    It keeps a window of W numbers a column and a histogram of O(log n) buckets. `observe` may be called from any thread
    and never raises because of what a client sent.

    Args:
        references: By column, from `read_training_sample`.
        window: W.
        chance: As `CHANCE`.
    """

    def __init__(self, references: Mapping[str, ColumnReference], window: int = WINDOW, chance: float = CHANCE) -> None:
        self.references = references
        num_tests = sum(2 if reference.is_number else 1 for reference in references.values())
        self._chance = chance / max(num_tests, 1)
        self._windows = {name: _Window(window) for name in references}
        self._streams = {name: _Stream(chance / max(num_tests, 1)) for name in references}
        self._num_seen = 0
        self._lock = threading.Lock()

    def observe(self, features: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes an answered batch in.

        Args:
            features: As the client sent them, [B, ...] by input name.
            outputs: As it was answered, [B, ...] by output name.
        """
        arrays = dict(features) | {PREDICTION + name: values for name, values in outputs.items()}
        num_rows = max((len(values) for values in arrays.values()), default=0)
        # Of a large batch evenly spread rows stand for all.
        step = -(-num_rows // _MOST_ROWS) or 1
        try:
            columns = columns_of({name: values[::step] for name, values in arrays.items()})
            encoded = {
                name: reference.encode(columns[name])
                for name, reference in self.references.items()
                if name in columns and (columns[name].dtype.kind == "f") == reference.is_number
            }
        except (TypeError, ValueError, UnicodeError):
            return  # the model has refused or will refuse such a batch: nothing to watch
        with self._lock:
            self._num_seen += num_rows
            for name, values in encoded.items():
                self._windows[name].add(values)
                self._streams[name].add(self.references[name].rank(values))

    def check(self) -> Drift:
        """Compares now. Takes about a millisecond a column: call it every few seconds, not with every request."""
        with self._lock:
            values = {name: window.values() for name, window in self._windows.items()}
            changes = {name: stream.changes for name, stream in self._streams.items()}
            num_seen = self._num_seen
        scores = {
            name: score(self.references[name], live, self._chance)
            for name, live in values.items()
            if len(live) >= FEWEST
        }
        missing = tuple(name for name, live in values.items() if num_seen and not len(live))
        compared = max((len(live) for live in values.values()), default=0)
        return Drift(num_seen, compared, scores, changes, missing)

    def counts(self) -> dict[str, np.ndarray]:
        """Live values in each bin of each column, for a report."""
        with self._lock:
            values = {name: window.values() for name, window in self._windows.items()}
        return {name: self.references[name].counts_of_encoded(live) for name, live in values.items()}


class _Window:
    """The newest W numbers, in a ring."""

    def __init__(self, size: int) -> None:
        self._ring, self._num_added = np.zeros(size), 0

    def add(self, values: np.ndarray) -> None:
        size = len(self._ring)
        values = values[-size:]
        places = (self._num_added + np.arange(len(values))) % size
        self._ring[places] = values
        self._num_added += len(values)

    def values(self) -> np.ndarray:
        return self._ring[: self._num_added].copy() if self._num_added < len(self._ring) else self._ring.copy()


class _Stream:
    """ADWIN over the mean ranks of blocks of samples: ranks lie in [0, 1], and a block costs what a sample would."""

    def __init__(self, delta: float) -> None:
        self._adwin, self._block, self.changes = Adwin(delta), np.zeros(0), 0

    def add(self, ranks: np.ndarray) -> None:
        self._block = np.concatenate([self._block, ranks[np.isfinite(ranks)]])
        while len(self._block) >= _BLOCK:
            self.changes += self._adwin.add(float(self._block[:_BLOCK].mean()))
            self._block = self._block[_BLOCK:]
