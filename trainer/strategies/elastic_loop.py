"""The inner loop of an elastic worker: gradients of its parts, the sum over the group, the update; step by step.

A step of a small model takes less time than two calls into TensorFlow. So one traced function does both: it applies the
sum of this step, and computes the gradients of the next. Either half can be left out: the first call of a block has no
sum yet, the last one no next batch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from trainer.membership import Collective, Reduction
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.state_tensors import Contribution, StateTensors
from trainer.step.window import LOSS
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.compression import Compression, tables_of
from trainer.strategies.contribution_check import ContributionCheck
from trainer.strategies.contribution_layout import ContributionLayout
from trainer.strategies.device_sums import DeviceSums
from trainer.strategies.inner_loop import packed_status
from trainer.strategies.overlap import Overlap
from trainer.strategies.part_meeting import PartMeeting
from trainer.strategies.strategy import Block, LoopResult
from trainer.strategies.variable_update import kernel_update, variable_update

Sums = dict[tf.DType, np.ndarray] | dict[tf.DType, tf.Tensor]
"""By type: in the host's memory, or on the device."""


class Votes(Protocol):
    """What travels with the gradients; see `Agreement`."""

    own: list[bool]
    last_counted: list[bool]

    def heed(self) -> None:
        """Raises `Membership.broken` if this group is not the one to take the next step with."""
        ...


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


class _Word(NamedTuple):
    """What a call of the traced function is told besides the sums and the block; it travels as one vector.

    Attributes:
        applies: Whether there is a sum to be applied.
        empties_window: Whether the window is emptied before.
        computes: Whether gradients are wanted after it.
        index: Of the step in the block.
        place: Of the part among those in the block.
        part: Of the global batch.
    """

    applies: bool
    empties_window: bool
    computes: bool
    index: int
    place: int
    part: int


class ElasticLoop:
    """Takes steps with whatever group there is; a `TrainLoop` in Python.

    All that a worker computes is in one traced function, whatever the number of parts that it has, so that a part has
    the same bits wherever it is computed and a worker that gets other parts traces nothing.

    Args:
        step: The two halves.
        state: Read by the first and written by the second.
        votes: Of this worker and, after each step, of all.
        own_time: Told of each step.
        num_parts: Of the global batch.
        check: Compares contributions before they are added up; None: nobody does.
        compression: Of gradients that travel; None: they do as they are.
        overlap: Adds up what is there while the rest is computed; None: all is added up when all is there.
        device_sums: Adds up on GPUs, where the members of a group can; None: always in the hosts' memory.
    """

    def __init__(
        self,
        step: Step,
        state: TrainState,
        votes: Votes,
        own_time: OwnTime,
        num_parts: int,
        check: ContributionCheck | None = None,
        compression: Compression | None = None,
        overlap: Overlap | None = None,
        device_sums: DeviceSums | None = None,
    ) -> None:
        self._step, self._state, self._votes, self._own_time = step, state, votes, own_time
        self._check, self._compression, self._overlap = check, compression, overlap
        self._device_sums = device_sums
        self._num_parts = num_parts
        self._part_rows = step.gradients.batch_size // num_parts if num_parts > 1 else None
        self._parts = range(num_parts)
        # Where parts exchange statistics while they are computed; None: none of them needs another one.
        self._meeting: PartMeeting | None = None
        if step.gradients.is_synchronized and self._part_rows is not None:
            self._meeting = PartMeeting(num_parts, self._part_rows, own_time)
            step.gradients.exchange = self._meeting.exchange
        self._reductions: dict[tf.DType, Reduction] = {}
        # What this worker has computed for the step in work: if the group breaks, it need not be computed again.
        self._computed: dict[int, list[tf.Tensor]] = {}
        self._computed_step = -1
        self._workers: ThreadPoolExecutor | None = None
        self._layout: ContributionLayout | None = None
        self._num_gradients = len(state.placed.trainable)
        # What a batch does not look up in a table has the gradient zero, and need not leave the host.
        self._encoded: Collection[int] = tables_of(state.model) if compression is None else range(self._num_gradients)
        self._encoding = compression.encoding if compression else "sparse" if self._encoded else None
        self._advance: tf.types.experimental.ConcreteFunction | None = None
        self._features: list[str] = []
        self._no_sums: list[tf.Tensor] = []
        self._words: dict[_Word, tf.Tensor] = {}
        self._gradients = tf.function(
            self._joined_gradients, jit_compile=step.compiles_gradients or None, autograph=step.converts
        )
        self._update_variables = (kernel_update if step.compilation.kernels else variable_update)(step, state)
        self._update = tf.function(
            self._unpacked_update, jit_compile=step.compiles_update or None, autograph=step.converts
        )

    def __call__(self, block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
        """See `TrainLoop`. Raises `Membership.broken` between two steps of this worker: the state is that of a step."""
        self._votes.heed()
        step, begin, finite, empty = self._state.step, int(first), True, bool(empty_window)
        end = begin + int(num_steps)
        for index in range(begin, end):
            sums = self._sums(block, index, step)
            # Emptied with the step that counts: whoever comes to be the chief before it may still have to log it.
            finite = self._take_step(
                block, index + 1 if index + 1 < end else None, step, sums, empty and index == begin
            )
            if not finite:
                break
            step += 1
        return LoopResult(
            self._state.variables["window"].read_value(),
            packed_status(tf.constant(step, tf.int64), tf.constant(finite)),
        )

    def get_concrete_function(self, block: Block, *_: tf.Tensor) -> object:
        """What the graph of the model is recorded from."""
        return self._traced(block)

    def reductions(self, collective: Collective, parts: Sequence[range]) -> dict[tf.DType, Reduction]:
        """The sums that steps with a group need, by type; all members prepare them together.

        Args:
            collective: Of the group.
            parts: That each member computes, by rank.
        """
        assert self._layout is not None, "traced before the first group"
        reductions = {}
        for dtype, length in self._layout.lengths.items():
            told: dict[str, Any] = {}
            if self._encoding is not None and dtype == tf.float32:
                told = {"encoding": self._encoding, "num_exact": self._layout.num_exact}
            if self._overlap is not None and self._overlap.is_on and dtype == tf.float32:
                told["ranges"] = self._overlap.ranges(length)
            reductions[dtype] = collective.reduction(parts, self._num_parts, length, dtype.as_numpy_dtype, **told)
        return reductions

    def move_to(
        self,
        collective: Collective,
        parts: Sequence[range],
        reductions: dict[tf.DType, Reduction] | None = None,
    ) -> None:
        """Takes its next steps with another group.

        Args:
            collective: Of the group.
            parts: That each member computes, by rank.
            reductions: The sums, where they are prepared.
        """
        assert self._layout is not None, "traced before the first group"
        self._parts = parts[collective.rank]
        self._reductions = {}
        if self._device_sums is not None and self._device_sums.is_on:
            self._device_sums.move_to(collective, parts, self._num_parts, self._layout)
        else:
            self._reductions = self.reductions(collective, parts) if reductions is None else reductions
        if self._compression is not None:
            self._compression.move_to(self._parts)
        if self._meeting is not None:
            self._computed = {}  # whoever computes a part for the first time needs all others to exchange with
            self._meeting.move_to(collective, parts)
        self._own_time.begin_anew()

    def warm_up(self, block: Block) -> None:
        """Traces and runs everything once on a real batch, without a group; the state stays.

        Args:
            block: At least one step of the parts that this worker would compute.
        """
        values = {name: variable.numpy() for name, variable in self._state.variables.items()}
        [tensors] = self._contributions(block, 0, [0])
        assert self._layout is not None, "tracing finds it out"
        vectors = {dtype: np.zeros(size, dtype.as_numpy_dtype) for dtype, size in self._layout.lengths.items()}
        self._layout.pack(tensors, self._votes.own, vectors)
        # As in a training, where the two take turns: what is compiled for the next step is compiled here.
        following = 0 if self._meeting is None else None
        self._call(block, [tf.constant(vector) for vector in vectors.values()], False, following, 0)
        self._state.restore(values)

    def _sums(self, block: Block, index: int, step: int) -> Sums:
        """The sum of all parts of all members for a step; nothing has changed if the group breaks."""
        assert self._layout is not None
        if self._computed_step != step:
            self._computed, self._computed_step = {}, step
        missing = [part for part in self._parts if part not in self._computed]
        with self._added_beside(step) if missing else contextlib.nullcontext():
            self._computed.update(zip(missing, self._contributions(block, index, missing), strict=True))
        if self._device_sums is not None and self._device_sums.is_on:
            return self._sums_on_devices(self._device_sums, block, index, step)
        own = {dtype: reduction.own for dtype, reduction in self._reductions.items()}
        there = self._overlap.there if self._overlap is not None else ()
        for i, part in enumerate(self._parts):
            arrays = {dtype: arrays[i] for dtype, arrays in own.items()}
            self._layout.pack(self._computed[part], self._votes.own, arrays, there)
        self._own_time.arrive()
        if self._check is not None and self._check.is_due(step):
            self._compare(self._check, block, index, step, own)
        if self._compression is not None:
            for part, vector in zip(self._parts, own[tf.float32], strict=True):
                self._compression.thin(part, [vector[place] for place in self._layout.large])
        if self._overlap is not None:
            self._overlap.finish()
        sums = {dtype: reduction.run() for dtype, reduction in self._reductions.items()}
        self._own_time.end()
        return sums

    def _sums_on_devices(self, device_sums: DeviceSums, block: Block, index: int, step: int) -> Sums:
        """Of what this worker has computed on its GPU, and the others on theirs."""
        assert self._layout is not None
        vectors = device_sums.pack([self._computed[part] for part in self._parts], self._votes.own)
        self._own_time.arrive()
        if self._check is not None and self._check.is_due(step):
            own = {
                dtype: [vector.numpy() for vector in of_type]
                for dtype, of_type in zip(self._layout.lengths, vectors, strict=True)
            }
            self._compare(self._check, block, index, step, own)
        sums = device_sums.run(vectors)
        self._own_time.end()
        return sums

    def _added_beside(self, step: int) -> contextlib.AbstractContextManager:
        """While its gradients are computed; a step whose contributions are compared first is added up afterwards."""
        overlap = self._overlap
        if overlap is None or not overlap.is_on or (self._check is not None and self._check.is_due(step)):
            return contextlib.nullcontext()
        return overlap.beside(self._reductions[tf.float32], self._parts, self._computed)

    def _compare(
        self,
        check: ContributionCheck,
        block: Block,
        index: int,
        step: int,
        own: Mapping[tf.DType, Sequence[np.ndarray]],
    ) -> None:
        """Has what this worker is about to contribute compared with what another one computes; see `run`."""
        layout, meeting = self._layout, self._meeting
        assert layout is not None

        def compute(of_another: Block, place: int, part: int) -> list[np.ndarray]:
            def again(part: int) -> list[tf.Tensor]:
                return self._call(of_another, None, False, 0, part, place)[1]

            tensors, handed = (again(part), []) if meeting is None else meeting.compute_again(again, part)
            vectors = {dtype: np.zeros(size, dtype.as_numpy_dtype) for dtype, size in layout.lengths.items()}
            layout.pack(tensors, (), vectors)
            return [*layout.used(vectors), *handed]

        contributions = {
            part: layout.used({dtype: arrays[i] for dtype, arrays in own.items()}) for i, part in enumerate(self._parts)
        }
        if meeting is not None:
            contributions = {part: [*arrays, *meeting.handed(part)] for part, arrays in contributions.items()}
        check.run(step, {name: value[index].numpy() for name, value in block.items()}, contributions, compute)

    def _take_step(self, block: Block, following: int | None, step: int, sums: Sums, empty_window: bool) -> bool:
        """Applies the sum; whether it was finite.

        Args:
            block: Holds the batches of this step and of the next one.
            following: Index of the next step in the block; None where it is not there.
            step: Steps done before.
            sums: Of this step.
            empty_window: Whether the window is emptied before.
        """
        assert self._layout is not None
        if len(self._parts) > 1 or self._meeting is not None:
            following = None  # parts are computed beside each other, and a group that breaks finds a step taken or not
        self._computed = {}
        with self._added_beside(step + 1) if following is not None else contextlib.nullcontext():
            finite, tensors = self._call(
                block, [_shared(vector) for vector in sums.values()], empty_window, following, self._parts.start
            )
        if not finite and self._overlap is not None:
            self._overlap.cancel()  # nothing was computed, by nobody
        if finite:
            if self._compression is not None:
                self._compression.step_taken()
            self._computed_step = step + 1
            if following is not None:
                self._computed = {self._parts.start: tensors}
        self._votes.last_counted = (np.asarray(sums[tf.float32][self._layout.extra]) > 0).tolist()
        return finite

    def _contributions(self, block: Block, index: int, parts: Sequence[int]) -> Iterable[list[tf.Tensor]]:
        """Those of some of this worker's parts. Each part on a thread of its own: TensorFlow's kernels use no more
        threads than with one part, because another number of them could change the bits."""
        if self._meeting is not None:
            return self._meeting.compute(lambda part: self._compute(block, index, part), parts)
        if len(parts) < 2:
            return (self._compute(block, index, part) for part in parts)
        self._workers = self._workers or ThreadPoolExecutor(self._num_parts, "parts")
        return self._workers.map(lambda part: self._compute(block, index, part), parts)

    def _compute(self, block: Block, index: int, part: int) -> list[tf.Tensor]:
        """The contribution of one of this worker's parts."""
        return self._call(block, None, False, index, part)[1]

    def _call(
        self,
        block: Block,
        sums: list[tf.Tensor] | None,
        empty_window: bool,
        index: int | None,
        part: int,
        place: int | None = None,
    ) -> tuple[bool, list[tf.Tensor]]:
        """Applies sums, if any, and computes a part of a step, if any; its place is that in this worker's blocks."""
        advance = self._traced(block)
        if place is None:
            place = max(0, part - self._parts.start)
        word = _Word(sums is not None, empty_window, index is not None, index or 0, place, part)
        told = self._words.get(word)
        if told is None:  # made once, because making a tensor takes as long as a small kernel
            told = self._words[word] = tf.constant(word, tf.int32)
        # Flat, and the function itself: to find one that fits nested arguments takes longer than a small step.
        features = [block[name] for name in self._features]
        finite, *tensors = advance(told, *(self._no_sums if sums is None else sums), *features)
        return bool(finite), tensors

    def _traced(self, block: Block) -> tf.types.experimental.ConcreteFunction:
        advance = self._advance
        if advance is None:
            whole = self._part_rows is None
            rows = {
                name: tf.TensorSpec([value.shape[1] if whole else self._part_rows, *value.shape[2:]], value.dtype)
                for name, value in block.items()
            }
            state = tf.nest.map_structure(lambda v: tf.TensorSpec(v.shape, v.dtype), self._state.placed)
            self._gradients.get_concrete_function(state, rows, tf.TensorSpec([], tf.int64))
            assert self._layout is not None, "tracing finds it out"
            dtypes = list(self._layout.lengths)
            self._no_sums = [tf.zeros([0], dtype) for dtype in dtypes]
            self._features = list(block)
            # How many parts a block has differs with the group, and how many steps at its end: neither traces anew.
            specs = [
                tf.TensorSpec([None, value.shape[1] if whole else None, *value.shape[2:]], value.dtype)
                for value in block.values()
            ]
            advance = tf.function(self._apply_and_compute, autograph=self._step.converts).get_concrete_function(
                tf.TensorSpec([len(_Word._fields)], tf.int32),
                *(tf.TensorSpec([None], dtype) for dtype in dtypes),
                *specs,
            )
            self._advance = advance
        return advance

    # Everything below is traced.

    def _apply_and_compute(self, word: tf.Tensor, *arguments: tf.Tensor) -> list[tf.Tensor]:
        """Both halves, in the order in which a training comes to them; whether the first was finite, and the second's
        joined tensors."""
        assert self._layout is not None
        layout, told = self._layout, _Word(*tf.unstack(word))
        sums, features = arguments[: len(layout.lengths)], arguments[len(layout.lengths) :]
        block = dict(zip(self._features, features, strict=True))
        applies, computes = told.applies > 0, told.computes > 0
        finite = tf.cond(
            applies, lambda: self._guarded_update(sums, tf.greater(told.empties_window, 0)), lambda: tf.constant(True)
        )
        tensors = tf.cond(tf.logical_and(computes, finite), lambda: self._part_gradients(block, told), layout.empty)
        return [finite, *tensors]

    def _part_gradients(self, block: Block, told: _Word) -> list[tf.Tensor]:
        """The joined contribution of a part."""
        batch = {name: value[told.index] for name, value in block.items()}
        if self._part_rows is None:
            return self._gradients(self._state.read(), batch, tf.constant(0, tf.int64))
        rows, begin = self._part_rows, told.place * self._part_rows
        batch = {
            name: tf.ensure_shape(value[begin : begin + rows], [rows, *value.shape[1:]])
            for name, value in batch.items()
        }
        return self._gradients(self._state.read(), batch, tf.cast(told.part * rows, tf.int64))

    def _joined_gradients(self, state: StateTensors, batch: Block, first_sample: tf.Tensor) -> list[tf.Tensor]:
        """The contribution of some samples as few tensors; finds out the layout while it is traced."""
        tensors = tf.nest.flatten(self._step.gradients(state, batch, first_sample))
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
        self._layout = ContributionLayout(specs, len(self._votes.own), self._encoded)
        joined = self._layout.join(tensors)
        if self._overlap is not None:
            self._overlap.listen(self._layout, self._num_gradients, joined, first_sample // (self._part_rows or 1))
        return joined

    def _guarded_update(self, sums: Sequence[tf.Tensor], empty_window: tf.Tensor) -> tf.Tensor:
        """Applies the sum of all contributions, unless it is not finite."""
        assert self._layout is not None
        sums = [
            tf.ensure_shape(vector, [length])
            for vector, length in zip(sums, self._layout.lengths.values(), strict=True)
        ]
        # Outside of what is compiled, as on one device: XLA then changes the variables in place.
        finite = self._step.apply.accepts(self._state.placed.loss_scale, self._joined_total(sums))
        return tf.cond(finite, lambda: self._update(sums, empty_window), lambda: finite)

    def _joined_total(self, sums: list[tf.Tensor]) -> Contribution:
        """All that `Apply.accepts` looks at, in as few pieces as there are: every other one is another kernel."""
        assert self._layout is not None
        vectors, num_tensors = self._by_type(sums), self._layout.num_tensors
        loss = self._layout.element(vectors, -1, LOSS)
        return Contribution((), tuple(self._layout.regions(vectors, num_tensors - 1)), tf.reshape(loss, [1]))

    def _unpacked_update(self, sums: list[tf.Tensor], empty_window: tf.Tensor) -> tf.Tensor:
        assert self._layout is not None
        *tensors, own_sums = self._layout.unpack(self._by_type(sums))
        gradients, statistics = tensors[: self._num_gradients], tensors[self._num_gradients :]
        return self._update_variables(Contribution(tuple(gradients), tuple(statistics), own_sums), empty_window)

    def _by_type(self, sums: Sequence[tf.Tensor]) -> dict[tf.DType, tf.Tensor]:
        assert self._layout is not None
        return dict(zip(self._layout.lengths, sums, strict=True))


def _shared(vector: np.ndarray | tf.Tensor) -> tf.Tensor:
    """A tensor of the same memory; no operation changes it, and it is gone before the memory is used again."""
    if isinstance(vector, tf.Tensor):
        return vector
    return tf.experimental.dlpack.from_dlpack(vector.__dlpack__())
