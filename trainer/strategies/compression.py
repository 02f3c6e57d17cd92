"""What a part of the batch keeps back of its gradients when they travel compressed.

Only large tensors are compressed (`ContributionLayout`); losses, counts and small tensors travel as they are. Rounding
to 16 bits belongs to the sum (`cluster/process_group/encoding.py`): it has no memory. Top-k has one: what a part does
not send it adds to its next gradients.

Source: Deep Gradient Compression (Lin et al., ICLR 2018), without its momentum correction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import keras
import numpy as np

from trainer.config.elastic import ElasticConfig

_SAMPLE = 1 << 16  # magnitudes that a threshold is estimated from
# What is smaller is no number worth a place; nor is a negative zero, which would not come back as one.
_LEAST = float(np.finfo(np.float32).tiny)


def tables_of(model: keras.Model) -> list[int]:
    """The tables of embeddings, by their number among the trainable variables."""
    tables = {id(layer._embeddings) for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)}
    return [number for number, variable in enumerate(model.trainable_variables) if id(variable) in tables]


class Compression:
    """How the gradients of this worker's parts travel.

    What parts have kept back is theirs, not the model's: a part that another worker computes from now on begins with
    nothing, and so does every part when a training is resumed.

    Args:
        options: Of the `elastic` section; its compression is not "none".

    Attributes:
        encoding: Of the sum.
    """

    def __init__(self, options: ElasticConfig) -> None:
        self._share = options.top_k if options.compression == "top_k" else None
        self.encoding = "sparse" if options.compression == "top_k" else options.compression
        self._kept_back: dict[int, list[np.ndarray]] = {}
        self._next: dict[int, list[np.ndarray]] = {}

    def thin(self, part: int, tensors: Sequence[np.ndarray]) -> None:
        """Leaves the largest numbers of each tensor in place and zeros elsewhere, for a step that may be taken again.

        Args:
            part: Of the batch.
            tensors: Its gradients [N] each.
        """
        if self._share is None:
            return
        before = self._kept_back.get(part)
        self._next[part] = []
        for i, values in enumerate(tensors):
            if before is not None:
                values += before[i]
            magnitudes = np.abs(values)
            rest = np.where(magnitudes >= self._threshold(magnitudes), np.float32(0), values)
            values -= rest  # exact: either number is zero or the same
            self._next[part].append(rest)

    def step_taken(self) -> None:
        """The step counts: what was kept back in it comes to the next gradients."""
        self._kept_back.update(self._next)
        self._next = {}

    def move_to(self, parts: Collection[int]) -> None:
        """Another group: what parts of other workers kept back is theirs."""
        self._kept_back = {part: kept for part, kept in self._kept_back.items() if part in parts}
        self._next = {}

    def _threshold(self, magnitudes: np.ndarray) -> float:
        """What about the wanted share of all reaches, by a sample: to sort all would cost the time of a step."""
        assert self._share is not None
        sample = magnitudes[:: max(1, len(magnitudes) // _SAMPLE)]
        rank = len(sample) - max(1, round(len(sample) * self._share))
        return max(_LEAST, float(np.partition(sample, rank)[rank]))
