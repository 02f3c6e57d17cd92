"""What is kept of a stream of values, in memory that does not grow with it.

Shape legend: N values of one call.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

MOST_DISTINCT = 65_536
"""Different values of a feature that are counted exactly."""

MOST_KEPT = 10_000
"""Values of a feature that its histogram and its quantiles are made from."""


class Moments:
    """Count, extremes, mean and deviation of numbers; what is not finite is only counted.

    Batches are joined as Chan, Golub and LeVeque do, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: no sum of squares, which would lose the deviation of numbers far from zero.
    """

    def __init__(self) -> None:
        self.count = self.not_finite = 0
        self.low, self.high = math.inf, -math.inf
        self.mean = self._spread = 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the finite values."""
        return math.sqrt(self._spread / self.count) if self.count else 0.0

    def add(self, values: np.ndarray) -> None:
        """Takes float64 [N] in."""
        is_finite = np.isfinite(values)
        if not is_finite.all():
            self.not_finite += int(values.size - is_finite.sum())
            values = values[is_finite]
        if not values.size:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        mean = float(values.mean())
        count, distance = self.count + values.size, mean - self.mean
        self._spread += float(np.square(values - mean).sum()) + distance**2 * self.count * values.size / count
        self.mean += distance * values.size / count
        self.count = count


class ValueCounts:
    """How often each value occurs, exact for the first `most` different ones.

    Args:
        most: Different values that are kept; one that comes later is counted as another.
    """

    def __init__(self, most: int = MOST_DISTINCT) -> None:
        self.counts: dict[int | str, int] = {}
        self.others = 0  # occurrences of values that were not kept
        self._most = most

    @property
    def is_exact(self) -> bool:
        """Whether every value that occurred is counted."""
        return self.others == 0

    def add(self, values: np.ndarray) -> None:
        """Takes integers or text [N] in."""
        found, counts = np.unique(values, return_counts=True)
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            if value in self.counts or len(self.counts) < self._most:
                self.counts[value] = self.counts.get(value, 0) + count
            else:
                self.others += count

    def most_frequent(self, most: int) -> list[tuple[int | str, int]]:
        """Values and their counts, the most frequent first, equally frequent ones by value."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]


class Reservoir:
    """Values drawn evenly from a stream of any length: each has a random key, and the smallest keys stay.

    Args:
        most: Values that are kept; of no more values all of them.
        seed: Of the keys, so that the same stream leaves the same values.
    """

    def __init__(self, most: int = MOST_KEPT, seed: int = 0) -> None:
        self._most, self._draw = most, np.random.default_rng(seed)
        self._keys, self._values = np.zeros(0, np.float32), np.zeros(0)

    @property
    def values(self) -> np.ndarray:
        """What was drawn, float64, sorted."""
        return np.sort(self._values)

    def add(self, values: np.ndarray) -> None:
        """Takes float64 [N] in; what is not finite is left out."""
        values = values[np.isfinite(values)]
        keys = self._draw.random(len(values), np.float32)
        if len(self._keys) == self._most:
            may_stay = keys < self._keys.max()
            keys, values = keys[may_stay], values[may_stay]
        keys, values = np.concatenate([self._keys, keys]), np.concatenate([self._values, values])
        if len(keys) > self._most:
            kept = np.argpartition(keys, self._most)[: self._most]
            keys, values = keys[kept], values[kept]
        self._keys, self._values = keys, values


class Fingerprints:
    """128 bits of each sample, which tell equal samples: 24 bytes a sample, its position included."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []

    def add(self, batch: Mapping[str, np.ndarray], positions: np.ndarray) -> None:
        """Takes samples in: their features, each [N, ...], and their positions in the source, int64 [N]."""
        rows = _bytes_of_rows([batch[name] for name in sorted(batch)], len(positions))
        digests = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in rows)
        self._parts.append(np.frombuffer(digests, np.uint64).reshape(-1, 2))
        self._positions.append(np.asarray(positions, np.int64))

    def duplicates(self) -> list[tuple[int, int]]:
        """For each sample that equals an earlier one, its position and that of the first such one; by position."""
        if not self._parts:
            return []
        prints, positions = np.concatenate(self._parts), np.concatenate(self._positions)
        order = np.lexsort((positions, prints[:, 1], prints[:, 0]))
        prints, positions = prints[order], positions[order]
        repeats = np.concatenate([[False], (prints[1:] == prints[:-1]).all(axis=1)])
        # The first of each group of equal ones lies where the group begins.
        begins = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(repeats))))
        pairs = zip(positions[repeats].tolist(), positions[begins[repeats]].tolist(), strict=True)
        return sorted(pairs)


def _bytes_of_rows(arrays: Sequence[np.ndarray], num_rows: int) -> Sequence[bytes | memoryview]:
    """The bytes of all features of each row, side by side; texts with their lengths, so that none runs into another."""
    if any(values.dtype == object for values in arrays):
        return [
            b"".join(len(part := _plain_bytes(values[row])).to_bytes(8, "little") + part for values in arrays)
            for row in range(num_rows)
        ]
    flat = [np.ascontiguousarray(values).reshape(num_rows, -1).view(np.uint8) for values in arrays if values.size]
    return [memoryview(row) for row in np.concatenate(flat, axis=1)]


def _plain_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    array = np.asarray(value)
    return b"\0".join(map(bytes, array.ravel().tolist())) if array.dtype == object else array.tobytes()
