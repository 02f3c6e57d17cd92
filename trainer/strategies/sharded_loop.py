"""The inner loop of an elastic worker that holds only some of the optimizer's slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from trainer.strategies.elastic_loop import ElasticLoop, Sums
from trainer.strategies.optimizer_shards import OptimizerShards
from trainer.strategies.sharded_update import sharded_update
from trainer.strategies.strategy import Block


class _Sum(NamedTuple):
    """What a step needs that has been added up and is not applied."""

    block: Block
    step: int
    sums: Sums
    empty_window: bool


class ShardedLoop(ElasticLoop):
    """Updates what this worker holds, and gets the rest from the others, before it goes on.

    A group can break anywhere in between. No member applies a sum before all of them have it: so whoever is left can
    take the step to its end, with nothing but what it has.

    Args:
        shards: What is held.
        arguments: Of `ElasticLoop`.
    """

    def __init__(self, shards: OptimizerShards, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._shards = shards
        self._sum: _Sum | None = None
        self._update_variables = sharded_update(self._step, self._state, shards)
        self._update = tf.function(self._unpacked_update, autograph=self._step.converts)

    def _take_step(self, block: Block, following: int | None, step: int, sums: Sums, empty_window: bool) -> bool:
        self._sum = _Sum(block, step, sums, empty_window)
        self._shards.meet()
        finite = self._apply()
        if finite:
            self._shards.exchange()
        return finite

    def _apply(self) -> bool:
        assert self._sum is not None
        block, step, sums, empty_window = self._sum
        finite = super()._take_step(block, None, step, sums, empty_window)
        self._sum = None
        if finite:
            self._shards.updated()
        return finite

    def word(self) -> dict[str, Any]:
        """What this worker tells the others when a group is formed: also whether it has a sum that is not applied."""
        return {**self._shards.word(), "has_sum": self._sum is not None}

    def settle(self, words: Sequence[dict[str, Any]], rank: int) -> None:
        """Takes the step that some members of the last group have taken, if this worker has its sum.

        Args:
            words: Of the members of the new group; afterwards they say what is then.
            rank: This worker's.
        """
        newest = max(word["step"] for word in words)
        for other, word in enumerate(words):
            if word["has_sum"] and word["step"] == newest - 1:
                if other == rank:
                    self._apply()
                    word["carried"]["votes"] = self._votes.last_counted
                word.update(step=newest, is_whole=False)
        self._sum = None
