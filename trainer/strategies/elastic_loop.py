"""The inner loop of an elastic worker: gradients of its parts, the sum over the group, the update; step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import tensorflow as tf

from trainer.membership import Collective, Reduction
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.state_tensors import Contribution, StateTensors
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.contribution_layout import ContributionLayout
from trainer.strategies.inner_loop import packed_status
from trainer.strategies.strategy import Block, LoopResult


class Votes(Protocol):
    """What travels with the gradients; see `Agreement`."""

    own: list[bool]
    last_counted: list[bool]


class OwnTime:
    """How long this worker took for its own parts, while nobody waited for it."""

    def __init__(self) -> None:
        self._arrived, self._own_s = 0, 0.0
        self._ended_at: float | None = None

    def arrive(self) -> None:
        """This worker's contribution is there."""
        own_s = 0.0 if self._ended_at is None else time.monotonic() - self._ended_at
        self._arrived, self._own_s = self._arrived + 1, self._own_s + own_s

    def end(self) -> None:
        """The sum of all contributions is there."""
        self._ended_at = time.monotonic()

    def begin_anew(self) -> None:
        """The group is another one, and what it was waited for was not a step."""
        self._arrived, self._own_s, self._ended_at = 0, 0.0, None

    def count(self) -> ArrivalCount:
        """What has been counted since the group was formed."""
        return ArrivalCount(self._arrived, self._own_s)


class ElasticLoop:
    """Takes steps with whatever group there is; a `TrainLoop` in Python.

    The gradients of a part are one traced function, whatever the number of parts that this worker computes, so that
    they have the same bits wherever they are computed and a worker that gets other parts traces nothing.

    Args:
        step: The two halves.
        state: Read by the first and written by the second.
        votes: Of this worker and, after each step, of all.
        own_time: Told of each step.
        num_parts: Of the global batch.
    """

    def __init__(self, step: Step, state: TrainState, votes: Votes, own_time: OwnTime, num_parts: int) -> None:
        self._step, self._state, self._votes, self._own_time = step, state, votes, own_time
        self._num_parts = num_parts
        self._part_rows = step.gradients.batch_size // num_parts if num_parts > 1 else None
        self._num_gradients = len(state.placed.trainable)
        self._parts = range(num_parts)
        self._reductions: dict[tf.DType, Reduction] = {}
        # What this worker has computed for the step in work: if the group breaks, it need not be computed again.
        self._computed: dict[int, list[tf.Tensor]] = {}
        self._computed_step = -1
        self._workers: ThreadPoolExecutor | None = None
        self._layout: ContributionLayout | None = None
        self._gradients: tf.types.experimental.PolymorphicFunction | None = None
        self._finish = tf.function(self._finish_step, autograph=step.converts)
        self._compiled_gradients = (
            tf.function(step.gradients, jit_compile=True, autograph=step.converts)
            if step.compiles_gradients
            else step.gradients
        )
        self._compiled_finish = (
            tf.function(step.finish, jit_compile=True, autograph=step.converts) if step.compiles_update else step.finish
        )

    def __call__(self, block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
        """See `TrainLoop`. Raises `Membership.broken` between two steps of this worker: the state is that of a step."""
        step, begin, finite, empty = self._state.step, int(first), True, bool(empty_window)
        for index in range(begin, begin + int(num_steps)):
            # Emptied with the step that counts: whoever comes to be the chief before it may still have to log it.
            finite = self._take_step(block, index, step, empty and index == begin)
            if not finite:
                break
            step += 1
        return LoopResult(
            self._state.variables["window"].read_value(),
            packed_status(tf.constant(step, tf.int64), tf.constant(finite)),
        )

    def get_concrete_function(self, block: Block, *_: tf.Tensor) -> object:
        """What the graph of the model is recorded from."""
        return self._traced_gradients(block).get_concrete_function()

    def move_to(self, collective: Collective, parts: Sequence[range]) -> None:
        """Takes its next steps with another group.

        Args:
            collective: Of the group.
            parts: That each member computes, by rank.
        """
        assert self._layout is not None, "traced before the first group"
        self._parts = parts[collective.rank]
        self._reductions = {
            dtype: collective.reduction(parts, self._num_parts, length, dtype.as_numpy_dtype)
            for dtype, length in self._layout.lengths.items()
        }
        self._own_time.begin_anew()

    def warm_up(self, block: Block) -> None:
        """Traces and runs everything once on a real batch, without a group; the state stays.

        Args:
            block: At least one step of the parts that this worker would compute.
        """
        values = {name: variable.numpy() for name, variable in self._state.variables.items()}
        tensors = self._compute(block, 0, 0)
        self._layout = ContributionLayout([tf.TensorSpec(t.shape, t.dtype) for t in tensors])
        vectors = {dtype: np.zeros(size, dtype.as_numpy_dtype) for dtype, size in self._layout.lengths.items()}
        self._layout.pack(tensors, vectors)
        self._finish({dtype.name: tf.constant(vector) for dtype, vector in vectors.items()}, tf.constant(False))
        self._state.restore(values)

    def _take_step(self, block: Block, index: int, step: int, empty_window: bool) -> bool:
        """One step of the whole group; whether its loss was finite. Nothing has changed if the group breaks."""
        assert self._layout is not None
        if self._computed_step != step:
            self._computed, self._computed_step = {}, step
        missing = [part for part in self._parts if part not in self._computed]
        if len(missing) > 1:
            # Each part on a thread of its own: TensorFlow's kernels use no more threads than with one part, because
            # another number of them could change the bits.
            self._workers = self._workers or ThreadPoolExecutor(self._num_parts, "parts")
            tensors = self._workers.map(lambda part: self._compute(block, index, part), missing)
        else:
            tensors = (self._compute(block, index, part) for part in missing)
        self._computed.update(zip(missing, tensors, strict=True))
        own = {dtype: reduction.own for dtype, reduction in self._reductions.items()}
        for i, part in enumerate(self._parts):
            self._layout.pack(self._computed[part], {dtype: arrays[i] for dtype, arrays in own.items()})
        self._own_time.arrive()
        sums = {dtype: reduction.run() for dtype, reduction in self._reductions.items()}
        self._own_time.end()
        shared = {dtype.name: _shared(vector) for dtype, vector in sums.items()}
        finite = self._finish(shared, tf.constant(empty_window))
        self._computed = {}
        self._votes.last_counted = (self._layout.last(sums) > 0).tolist()
        return bool(finite)

    def _compute(self, block: Block, index: int, part: int) -> list[tf.Tensor]:
        """The contribution of one of this worker's parts, and its votes."""
        place = tf.constant(index), tf.constant(part - self._parts.start), tf.constant(part, tf.int64)
        return [*self._traced_gradients(block)(block, *place), tf.constant(self._votes.own, tf.float32)]

    def _traced_gradients(self, block: Block) -> tf.types.experimental.PolymorphicFunction:
        gradients = self._gradients
        if gradients is None:
            # How many parts a block has differs with the group, and how many steps at its end: neither traces anew.
            specs = {
                name: tf.TensorSpec(
                    [None, value.shape[1] if self._part_rows is None else None, *value.shape[2:]], value.dtype
                )
                for name, value in block.items()
            }
            place = [tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int64)]
            signature = [specs, *place]
            gradients = tf.function(self._part_gradients, input_signature=signature, autograph=self._step.converts)
            self._gradients = gradients
        return gradients

    # Everything below is traced.

    def _part_gradients(self, block: Block, index: tf.Tensor, place: tf.Tensor, part: tf.Tensor) -> list[tf.Tensor]:
        """The contribution of a part: the `place`-th of those in the block, the `part`-th of the global batch."""
        batch = {name: value[index] for name, value in block.items()}
        if self._part_rows is None:
            return tf.nest.flatten(self._compiled_gradients(self._state.read(), batch, tf.constant(0, tf.int64)))
        rows = self._part_rows
        batch = {
            name: tf.ensure_shape(value[place * rows : (place + 1) * rows], [rows, *value.shape[1:]])
            for name, value in batch.items()
        }
        return tf.nest.flatten(self._compiled_gradients(self._state.read(), batch, part * rows))

    def _finish_step(self, vectors: dict[str, tf.Tensor], empty_window: tf.Tensor) -> tf.Tensor:
        """Applies the sum of all contributions, unless its loss is not finite."""
        assert self._layout is not None
        *gradients_and_statistics, sums, _ = self._layout.unpack(
            {tf.as_dtype(name): vector for name, vector in vectors.items()}
        )
        gradients = gradients_and_statistics[: self._num_gradients]
        statistics = gradients_and_statistics[self._num_gradients :]
        state = self._state.read()
        state = state._replace(window=tf.where(empty_window, tf.zeros_like(state.window), state.window))
        new, finite = self._compiled_finish(state, Contribution(tuple(gradients), tuple(statistics), sums))
        tf.cond(finite, lambda: self._written(new), lambda: finite)
        return finite

    def _written(self, new: StateTensors) -> tf.Tensor:
        self._state.write(new)
        return tf.constant(True)


def _shared(vector: np.ndarray) -> tf.Tensor:
    """A tensor of the same memory; no operation changes it, and it is gone before the memory is used again."""
    return tf.experimental.dlpack.from_dlpack(vector.__dlpack__())
