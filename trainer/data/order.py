"""Which samples are in which batch: a pure function of (seed, epoch, position), with no state and no shuffle buffer.

So the position in the data is one integer, the step; opening the data at any step costs the same, and the global batch
of a step is the same whatever the number of workers.

Shape legend: B global batch, K steps, N number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.config.data import Remainder
from trainer.data.counter_random import sample_keys

# tf.random.experimental.index_shuffle fixes 4 rounds of its cipher. At 60,000 samples the orders of two epochs then
# correlate by 0.9 and batches are not random draws; from 8 rounds on neither is measurable. 12 keeps a margin.
CIPHER_ROUNDS = 12
# The cipher works on at least 16 bits and walks until it lands among the samples: 65,536 / N tries each. Below this
# many samples it is faster to sort random keys.
SMALLEST_CIPHER = 2048


@dataclass(frozen=True)
class SampleOrder:
    """The order of samples over all epochs.

    A batch never spans two epochs: every epoch has `steps_per_epoch` batches, and all but the last are full.

    Attributes:
        num_samples: Length of the source.
        batch_size: Samples in the global batch.
        seed: Any integer; its lowest 64 bits count.
        shuffle: False: every epoch is in the order of the source.
        remainder: The last, partial batch of an epoch: "pad" fills it with samples of weight 0, "drop" leaves it out,
            "keep" makes it smaller.

    Raises:
        ValueError: "drop" leaves no batch.
    """

    num_samples: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    remainder: Remainder = "pad"

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.batch_size < 1:
            raise ValueError(
                f"num_samples={self.num_samples} and data.batch_size={self.batch_size} must both be at least 1"
            )
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"data.remainder=drop leaves no batch, because data.batch_size={self.batch_size} is more than the "
                f"{self.num_samples} samples: set data.batch_size to at most {self.num_samples}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in each epoch."""
        if self.remainder == "drop":
            return self.num_samples // self.batch_size
        return -(-self.num_samples // self.batch_size)

    @property
    def weighted(self) -> bool:
        """Whether some samples have weight 0."""
        return self.remainder == "pad" and self.num_samples % self.batch_size != 0

    @property
    def full_batches(self) -> bool:
        """Whether every batch has exactly `batch_size` rows."""
        return self.remainder != "keep" or self.num_samples % self.batch_size == 0

    def batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Gives the global batch of one step, in a graph or eagerly.

        Args:
            step: int64 scalar, counted from 0 over all epochs.

        Returns:
            Indices into the source, int64 [B], and weights, float32 [B]: 1, or 0 where the row only pads. With
            "keep" the last batch of an epoch is shorter than B.
        """
        index, weight = self.batches(step, 1)
        index, weight = index[0], weight[0]
        if not self.full_batches:
            first = tf.math.floormod(tf.cast(step, tf.int64), self.steps_per_epoch) * self.batch_size
            size = tf.minimum(self.num_samples - first, self.batch_size)
            index, weight = index[:size], weight[:size]
        return index, weight

    def batches(self, first_step: tf.Tensor | int, num_steps: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Gives the batches of K = `num_steps` steps in a row in one set of vectorised operations.

        Args:
            first_step: int64 scalar, counted from 0 over all epochs.
            num_steps: K.

        Returns:
            Indices, int64 [K, B], and weights, float32 [K, B]. "keep" is padded here like "pad".
        """
        step = tf.cast(first_step, tf.int64) + tf.range(num_steps, dtype=tf.int64)
        epoch, step_in_epoch = step // self.steps_per_epoch, step % self.steps_per_epoch
        position = step_in_epoch[:, None] * self.batch_size + tf.range(self.batch_size, dtype=tf.int64)
        if self.remainder == "drop" or self.num_samples % self.batch_size == 0:
            weight = tf.ones(position.shape)
        else:
            weight = tf.cast(position < self.num_samples, tf.float32)
            position = tf.minimum(position, self.num_samples - 1)
        if not self.shuffle:
            return position, weight
        if self.num_samples < SMALLEST_CIPHER:
            return self._by_sorting(epoch, position), weight
        return self._by_cipher(epoch, position), weight

    def places(self, number: tf.Tensor) -> tf.Tensor:
        """Gives the samples at places in the order over all epochs, as if no batch ended.

        Args:
            number: int64 [M], M static, counted from 0 over all epochs, ascending.

        Returns:
            Indices, int64 [M].
        """
        epoch, position = number // self.num_samples, tf.math.floormod(number, self.num_samples)
        if not self.shuffle:
            return position
        shuffled = self._by_sorting if self.num_samples < SMALLEST_CIPHER else self._by_cipher
        return shuffled(epoch, position[:, None])[:, 0]

    def sample_ids(self, step: int) -> np.ndarray:
        """Gives the indices of the real samples in the global batch of `step`, int64, in their order."""
        with tf.device("CPU:0"):
            index, weight = self.batch(tf.constant(step, tf.int64))
        return index.numpy()[weight.numpy() > 0]

    def _by_cipher(self, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """Shuffles `position` [K, B] with a block cipher keyed by (seed, epoch) [K]."""
        # The cipher takes half a block of each word, 8 bits for a small set: each word must depend on the whole seed.
        words = [sample_keys(self.seed, epoch, tf.fill(tf.shape(epoch), np.int64(word))) for word in range(3)]
        keys = tf.repeat(tf.stack(words, axis=1), position.shape[1], axis=0)
        largest = self.num_samples - 1
        # The cipher's block is one bit short, and two indices become one, where the largest index is a power of 4 from
        # 4**8 on. There we shuffle one index more, and the one that lands on it takes what the extra one became.
        short = largest >= 4**8 and largest & (largest - 1) == 0 and largest.bit_length() % 2 == 1
        index = _encrypt(tf.reshape(position, [-1]), keys, largest + short)
        if short:
            index = tf.where(
                index > largest, _encrypt(tf.fill(tf.shape(index), np.int64(largest + 1)), keys, largest + 1), index
            )
        return tf.reshape(index, position.shape)

    def _by_sorting(self, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """Shuffles `position` [K, B] by sorting a random key for each sample, equal keys in the order of the source."""
        # K steps in a row lie in few epochs; each of them is sorted once.
        epochs = tf.range(epoch[0], epoch[-1] + 1)
        grid = tf.meshgrid(epochs, tf.range(self.num_samples, dtype=tf.int64), indexing="ij")
        permutation = tf.argsort(tf.cast(sample_keys(self.seed, *grid), tf.int64), axis=1, stable=True)
        index = tf.gather(tf.reshape(permutation, [-1]), (epoch - epoch[0])[:, None] * self.num_samples + position)
        return tf.cast(index, tf.int64)


def _encrypt(index: tf.Tensor, keys: tf.Tensor, largest: int) -> tf.Tensor:
    """Permutes [0, largest], where `index` [N] goes with keys [N, 3], by the cipher of tf.random's index_shuffle."""
    return tf.raw_ops.RandomIndexShuffle(
        index=index, seed=keys, max_index=tf.constant(largest, tf.int64), rounds=CIPHER_ROUNDS
    )
