"""The inner loop of an elastic worker that meets the others only once in many steps: rounds of local steps.

Each part of the global batch has a replica of the model of its own. In a round every replica takes its steps alone,
from the same state; at its end the replicas are averaged, and an outer optimizer takes a step along the difference to
the state that the round began with. That state is one for all. So a round is to a group what a step is to workers that
meet in every step: parts may be dealt to any number of workers, and a round that breaks is taken again from its
beginning, by whoever is left, with the replicas that survivors have finished.

Sources: local SGD (Stich, ICLR 2019); DiLoCo (Douillard et al., 2023), whose replicas keep the state of their own
optimizers, which here are averaged with the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.config.elastic import ElasticConfig
from trainer.membership import Collective, Reduction
from trainer.step.window import LOSS
from trainer.strategies.contribution_layout import ContributionLayout
from trainer.strategies.elastic_loop import ElasticLoop
from trainer.strategies.inner_loop import packed_status
from trainer.strategies.strategy import Block, LoopResult
from trainer.strategies.variable_update import variable_update

Values = dict[str, tf.Tensor]
"""Of the variables of the state, by name."""


class OuterLoop(ElasticLoop):
    """Takes rounds of steps with whatever group there is.

    A call may end within a round. The variables are then those of a replica, and nothing may be done with them.

    Args:
        options: Say how long a round is, and what the outer optimizer does.
        arguments: Of `ElasticLoop`.
    """

    def __init__(self, options: ElasticConfig, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert options.outer_every is not None
        self._round, self._rate, self._momentum = (
            options.outer_every,
            options.outer_learning_rate,
            options.outer_momentum,
        )
        apply = self._step.apply
        # A replica's batch is its part, and it counts its own statistics alone.
        local = replace(apply, num_contributions=apply.num_contributions // self._num_parts)
        self._update_variables = variable_update(replace(self._step, apply=local), self._state)
        self._means: list[str] = []  # what replicas change and is averaged
        self._round_layout: ContributionLayout | None = None
        self._start: Values | None = None  # of the round in work
        self._empties = False
        self._passed = 0  # steps since the start of the run, those of the round in work too
        self._replicas: dict[int, Values] = {}  # of parts that are within the round
        self._finished: dict[int, list[tf.Tensor]] = {}  # what parts contribute to the end of the round
        self._finished_round = -1

    @property
    def bytes_per_step(self) -> float:
        """What a part hands to the group, per step."""
        lengths = self._round_layout.lengths if self._round_layout else {}
        return sum(length * dtype.size for dtype, length in lengths.items()) / self._round

    def __call__(self, block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
        """See `TrainLoop`. Raises `Membership.broken` at the end of a round: the state is that of its beginning."""
        if self._start is None:
            self._start, self._empties, self._passed = self._values(), bool(empty_window), self._state.step
            if self._finished_round != self._passed:
                self._finished, self._finished_round = {}, self._passed
        self._passed += int(num_steps)
        ends = self._passed == self._finished_round + self._round
        self._own_steps(block, int(first), int(num_steps), ends)
        if not ends:
            self._votes.last_counted = [False] * len(self._votes.own)  # counted at the end of the round
            passed = tf.constant(self._passed, tf.int64)
            return LoopResult(self._start["window"], packed_status(passed, tf.constant(True)))
        try:
            return self._end_round()
        except BaseException:
            self._give_up_round()
            raise

    def reductions(self, collective: Collective, parts: Sequence[range]) -> dict[tf.DType, Reduction]:
        """See `ElasticLoop.reductions`."""
        layout = self._layout
        self._layout = self._round_layout  # what is added up are replicas, and not gradients
        try:
            return super().reductions(collective, parts)
        finally:
            self._layout = layout

    def move_to(
        self,
        collective: Collective,
        parts: Sequence[range],
        reductions: dict[tf.DType, Reduction] | None = None,
    ) -> None:
        """See `ElasticLoop.move_to`."""
        super().move_to(collective, parts, reductions)
        self._replicas = {}

    def warm_up(self, block: Block) -> None:
        """See `ElasticLoop.warm_up`."""
        super().warm_up(block)
        places, changed = self._state.placed, self._step.gradients.changed
        averaged = [*places.trainable, *(places.non_trainable[i] for i in changed), *places.optimizer, *places.ema]
        names = {id(variable): name for name, variable in self._state.variables.items()}
        self._means = [names[id(variable)] for variable in averaged]
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self._contribution(self._values())]
        self._round_layout = ContributionLayout(specs, len(self._votes.own))

    def _give_up_round(self) -> None:
        """Goes back to the beginning of the round in work; what replicas have finished is kept."""
        if self._start is not None:
            self._set(self._start)
        self._start, self._replicas = None, {}

    def _own_steps(self, block: Block, first: int, num_steps: int, ends: bool) -> None:
        """Has each replica of this worker take some steps of the round, perhaps its last."""
        for part in self._parts:
            if part in self._finished:
                continue
            self._set(self._replicas.pop(part, None) or self._fresh())
            finite = self._local_steps(block, first, num_steps, part)
            values = self._values()
            if not finite:
                # All come to know of it at the end of the round, and end there.
                values["window"] = tf.fill(values["window"].shape, float("nan"))
            if ends:
                self._finished[part] = self._contribution(values)
            else:
                self._replicas[part] = values

    def _fresh(self) -> Values:
        """What a replica begins a round with: the state that all have, and an empty window."""
        assert self._start is not None
        return {**self._start, "window": tf.zeros_like(self._start["window"])}

    def _local_steps(self, block: Block, first: int, num_steps: int, part: int) -> bool:
        """Steps of one replica; whether all were finite."""
        assert self._layout is not None
        if not np.isfinite(self._state.variables["window"].numpy()[LOSS]):
            return False
        tensors = self._compute(block, first, part)
        for index in range(first, first + num_steps):
            vectors = {dtype: np.zeros(size, dtype.as_numpy_dtype) for dtype, size in self._layout.lengths.items()}
            self._layout.pack(tensors, (), vectors)
            following = index + 1 if index + 1 < first + num_steps else None
            own = [tf.convert_to_tensor(vector) for vector in vectors.values()]
            finite, tensors = self._call(block, own, False, following, part)
            if not finite:
                return False
        return True

    def _end_round(self) -> LoopResult:
        """Adds up what all replicas have come to, and takes the outer step."""
        assert self._round_layout is not None and self._start is not None
        own = {dtype: reduction.own for dtype, reduction in self._reductions.items()}
        for i, part in enumerate(self._parts):
            arrays = {dtype: arrays[i] for dtype, arrays in own.items()}
            self._round_layout.pack(self._round_layout.join(self._finished[part]), self._votes.own, arrays)
        self._own_time.arrive()
        sums = {dtype: reduction.run() for dtype, reduction in self._reductions.items()}
        self._own_time.end()
        self._votes.last_counted = (sums[tf.float32][self._round_layout.extra] > 0).tolist()
        start = self._start
        tensors = self._round_layout.unpack({dtype: tf.constant(vector) for dtype, vector in sums.items()})
        after = self._outer_step(start, tensors)
        finite = bool(tf.reduce_all(tf.math.is_finite(after["window"])))
        self._set(after if finite else start)
        self._start, self._finished = None, {}
        step = self._state.variables["step"].read_value()
        return LoopResult(self._state.variables["window"].read_value(), packed_status(step, tf.constant(finite)))

    def _contribution(self, values: Values) -> list[tf.Tensor]:
        """What a replica hands over; all of it is added up."""
        return [values[name] for name in (*self._means, "window")]

    def _outer_step(self, start: Values, sums: Sequence[tf.Tensor]) -> Values:
        """The state after a round.

        The weights go along the mean difference by Nesterov's momentum; what else replicas change is their mean.

        Args:
            start: The state before it.
            sums: Of what the replicas hand over.
        """
        *totals, window = sums
        after, parts = dict(start), self._num_parts
        for name, total in zip(self._means, totals, strict=True):
            mean = total / parts if total.dtype.is_floating else total // parts
            momentum = start.get(f"outer/{name.removeprefix('model/')}")
            if momentum is not None and name.startswith("model/"):
                difference = start[name] - mean
                momentum = self._momentum * momentum + difference
                after[f"outer/{name.removeprefix('model/')}"] = momentum
                mean = start[name] - self._rate * (difference + self._momentum * momentum)
            after[name] = tf.cast(mean, start[name].dtype)
        after["step"] = start["step"] + self._round
        after["window"] = self._window(start["window"], window)
        return after

    def _window(self, before: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
        """The window with a round more: the samples of all replicas count, and of the steps' figures their mean."""
        samples = self._step.window.metrics.size
        figures = added[samples:] / self._num_parts
        kept = tf.zeros_like(before) if self._empties else before
        new = tf.concat([kept[:samples] + added[:samples], kept[samples:] + figures], 0)
        return tf.concat([new[:-1], figures[-1:]], 0)  # the rate is the newest

    def _values(self) -> Values:
        return {name: variable.read_value() for name, variable in self._state.variables.items()}

    def _set(self, values: Values) -> None:
        for name, variable in self._state.variables.items():
            variable.assign(values[name])
