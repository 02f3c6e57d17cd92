"""Mean and standard deviation of numbers that come piece by piece, the same however they are cut into pieces.

Sums are taken over blocks of `BLOCK` numbers, whatever pieces these came in, and joined without rounding in between
(`math.fsum`); the squares of a block about its own mean (Chan, Golub and LeVeque 1979).
"""

from __future__ import annotations

import math

import numpy as np

BLOCK = 1 << 16


class Moments:
    """Of all finite numbers that were added so far; what is not finite is left out."""

    def __init__(self) -> None:
        self._rest = np.empty(0)
        self._counts: list[int] = []
        self._sums: list[float] = []
        self._squares: list[float] = []

    def add(self, values: np.ndarray) -> None:
        """Adds numbers, [N]."""
        values = np.concatenate([self._rest, values[np.isfinite(values)]])
        whole = len(values) - len(values) % BLOCK
        for start in range(0, whole, BLOCK):
            self._close(values[start : start + BLOCK])
        self._rest = values[whole:].copy()

    def mean_and_deviation(self) -> tuple[float, float]:
        """Both; (0, 1) of nothing, and 1 for what has no scale of its own. Nothing may be added afterwards."""
        if len(self._rest):
            self._close(self._rest)
        count = sum(self._counts)
        if not count:
            return 0.0, 1.0
        mean = math.fsum(self._sums) / count
        between = (size * (total / size - mean) ** 2 for size, total in zip(self._counts, self._sums, strict=True))
        deviation = math.sqrt(math.fsum([*self._squares, *between]) / count)
        return mean, deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 1.0

    def _close(self, block: np.ndarray) -> None:
        total = float(block.sum(dtype=np.float64))
        self._counts.append(len(block))
        self._sums.append(total)
        self._squares.append(float(((block - total / len(block)) ** 2).sum(dtype=np.float64)))
