"""Which samples of several sources are in which batch: a pure function of (seed, step, position), as in `order.py`.

All samples that a run ever draws have a number: step times batch size, plus the position in the batch. A pattern of L
numbers says which source each belongs to; it repeats, and holds each source exactly as often as its weight says. So how
often a source was drawn before any number is a division and a look into a table, and that count is a place in the
source's own order, which goes through all of its samples before it takes one again.

Shape legend: B global batch, K steps, S sources, L numbers in a pattern, P phases of a schedule, M = K * B.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import tensorflow as tf

from trainer.data.counter_random import GOLDEN_RATIO
from trainer.data.order import SampleOrder

LONGEST_PATTERN = 10_000

Phase = tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class MixtureOrder(SampleOrder):
    """The order of samples of several sources that lie one after the other in one.

    Every batch is full and no sample has weight 0. An epoch is as many steps as all sources have full batches in them:
    a length, after which nothing begins anew.

    Attributes:
        lengths: Samples in each source.
        phases: The first step of each stretch of steps, ascending from 0, and the weight of each source in it.
    """

    lengths: tuple[int, ...] = ()
    phases: tuple[Phase, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in all samples of all sources, at least 1."""
        return max(1, self.num_samples // self.batch_size)

    def batches(self, first_step: tf.Tensor | int, num_steps: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Gives the batches of K = `num_steps` steps in a row.

        Returns:
            Indices into the joined source, int64 [K, B], and weights of 1, float32 [K, B].
        """
        tables, size = self._tables, num_steps * self.batch_size
        step = tf.cast(first_step, tf.int64) + tf.range(num_steps, dtype=tf.int64)
        number = tf.reshape(step[:, None] * self.batch_size + tf.range(self.batch_size, dtype=tf.int64), [size])
        phase = tf.repeat(tf.searchsorted(tables.first_steps, step, side="right") - 1, self.batch_size)
        since = number - tf.gather(tables.first_steps * self.batch_size, phase)
        length = tf.gather(tables.pattern_lengths, phase)
        row = tf.gather(tables.pattern_starts, phase) + since % length
        drawn = (
            tf.gather(tables.drawn_before, phase)
            + (since // length)[:, None] * tf.gather(tables.drawn_by_pattern, phase)
            + tf.gather(tables.drawn_in_pattern, row)
        )
        source = tf.gather(tables.sources, row)
        index = tf.zeros([size], tf.int64)
        begin = 0
        for which, num_samples in enumerate(self.lengths):
            # Numbers of other sources count along, so that all ascend; they are dropped again.
            own = begin + self._order_of(which).places(tf.reshape(drawn[:, which], [size]))
            index = tf.where(source == which, own, index)
            begin += num_samples
        shape = (num_steps, self.batch_size)
        return tf.reshape(index, shape), tf.ones(shape)

    def drawn(self, num_steps: int) -> tuple[int, ...]:
        """Samples that the first `num_steps` steps draw from each source."""
        counts = np.zeros(len(self.lengths), np.int64)
        ends = [*(first for first, _ in self.phases[1:]), num_steps]
        for (first, weights), end in zip(self.phases, ends, strict=True):
            pattern = pattern_of(weights)
            since = max(0, min(num_steps, end) - first) * self.batch_size
            whole, rest = divmod(since, len(pattern))
            counts += whole * np.bincount(pattern, minlength=len(counts))
            counts += np.bincount(pattern[:rest], minlength=len(counts))
        return tuple(counts.tolist())

    def _order_of(self, which: int) -> SampleOrder:
        return SampleOrder(self.lengths[which], 1, self.seed ^ (which + 1) * GOLDEN_RATIO, self.shuffle)

    @functools.cached_property
    def _tables(self) -> _Tables:
        patterns = [pattern_of(weights) for _, weights in self.phases]
        taken = [pattern[:, None] == np.arange(len(self.lengths)) for pattern in patterns]
        return _Tables(
            first_steps=np.array([first for first, _ in self.phases]),
            pattern_lengths=np.array([len(pattern) for pattern in patterns]),
            pattern_starts=np.cumsum([0, *(len(pattern) for pattern in patterns[:-1])]),
            sources=np.concatenate(patterns),
            drawn_in_pattern=np.concatenate([np.cumsum(one, axis=0) - one for one in taken]),
            drawn_by_pattern=np.stack([one.sum(axis=0) for one in taken]),
            drawn_before=np.array([self.drawn(first) for first, _ in self.phases]),
        )


@dataclass(frozen=True)
class _Tables:
    """All int64.

    Attributes:
        first_steps: Of each phase, [P].
        pattern_lengths: L of each phase, [P].
        pattern_starts: Where its pattern begins among all patterns one after the other, [P].
        sources: The source of each number of all patterns, [sum of L].
        drawn_in_pattern: How often the pattern has each source before that number, [sum of L, S].
        drawn_by_pattern: How often it has each source in all, [P, S].
        drawn_before: Samples of each source that all phases before draw, [P, S].
    """

    first_steps: np.ndarray
    pattern_lengths: np.ndarray
    pattern_starts: np.ndarray
    sources: np.ndarray
    drawn_in_pattern: np.ndarray
    drawn_by_pattern: np.ndarray
    drawn_before: np.ndarray


@functools.lru_cache(maxsize=64)
def pattern_of(weights: tuple[float, ...]) -> np.ndarray:
    """The source of each number of a pattern, int64 [L]: at each one that which lags most behind its share.

    >>> pattern_of((0.75, 0.25)).tolist()
    [0, 0, 1, 0]
    """
    counts = np.array(_whole_shares(weights))
    length, taken = int(counts.sum()), np.zeros(len(counts), np.int64)
    pattern = np.empty(length, np.int64)
    for number in range(length):
        lag = np.where(taken < counts, counts * (number + 1) - taken * length, -length * length)
        pattern[number] = lag.argmax()
        taken[pattern[number]] += 1
    pattern.setflags(write=False)
    return pattern


def _whole_shares(weights: Sequence[float]) -> list[int]:
    """Whole numbers in the proportion of the weights as they are written: exact, or rounded to parts of 10,000."""
    exact = [Fraction(str(weight)) for weight in weights]
    shares = [weight / sum(exact) for weight in exact]
    length = math.lcm(*(share.denominator for share in shares))
    if length <= LONGEST_PATTERN:
        return [int(share * length) for share in shares]
    # The largest remainders get what rounding down leaves over.
    counts = [int(share * LONGEST_PATTERN) for share in shares]
    by_rest = sorted(range(len(shares)), key=lambda which: counts[which] - shares[which] * LONGEST_PATTERN)
    for which in by_rest[: LONGEST_PATTERN - sum(counts)]:
        counts[which] += 1
    return counts
