"""The first half of a step: from a slice of the global batch to its contribution.

Shape legend: B samples of the slice, M samples of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import keras
import tensorflow as tf

from trainer.step.freezing import Thawing, frozen
from trainer.step.global_statistics import Exchange, global_statistics
from trainer.step.randomness import keyed_randomness
from trainer.step.state_tensors import Contribution, StateTensors, add
from trainer.step.window import MetricLayout
from trainer.tasks.task import Task

Batch = Mapping[str, tf.Tensor]


@dataclass
class Gradients:
    """Computes the contribution of a slice of the global batch.

    Attributes:
        model: Called without side effects, on the tensors of the state.
        task: Turns the slice into inputs, losses and metric sums.
        metrics: Layout of the sums.
        seed: The run's seed, for the random numbers in the model.
        batch_size: Samples of the global batch.
        tree_parts: Parts of the slice (`train.virtual_workers` over the replicas) whose contributions are added in a
            fixed tree, so that the sum does not depend on where they were computed.
        accumulate: Micro-batches of a part, computed one after the other.
        whole: The slice is the global batch and is not cut: the mean is taken here, before the gradient.
        thawing: The layers that are frozen at first; their gradients are zero then.
        is_synchronized: Batch normalisation uses the statistics of the whole global batch, which is cut.
        exchange: How, from the strategy that cuts it, which sets it before it traces anything.
    """

    model: keras.Model
    task: Task
    metrics: MetricLayout
    seed: int
    batch_size: int
    tree_parts: int
    accumulate: int
    whole: bool
    thawing: Thawing | None = None
    is_synchronized: bool = False
    exchange: Exchange | None = field(default=None, init=False)
    changed: list[int] = field(default_factory=list, init=False)

    def __call__(self, state: StateTensors, batch: Batch, first_sample: tf.Tensor) -> Contribution:
        """The slice's contribution.

        Args:
            state: The state before the step.
            batch: Features [B, ...] of the slice.
            first_sample: int64 scalar, the slice's first position in the global batch.

        Returns:
            The contribution, summed over the slice. A variable that the forward pass changes counts once for each
            micro-batch in `statistics`; `changed` says which ones those are.
        """
        num_samples = next(iter(batch.values())).shape[0]
        if self.tree_parts * self.accumulate == 1:
            return self._micro_batch(state, batch, first_sample, num_samples)
        assert num_samples is not None, "the config refuses parts of batches whose size differs"
        return self._tree(state, batch, first_sample, num_samples // self.tree_parts, 0, self.tree_parts)

    def _tree(
        self, state: StateTensors, batch: Batch, first_sample: tf.Tensor, size: int, begin: int, end: int
    ) -> Contribution:
        if end - begin == 1:
            part = {name: value[begin * size : end * size] for name, value in batch.items()}
            return self._accumulated(state, part, first_sample + begin * size, size)
        middle = (begin + end + 1) // 2
        left = self._tree(state, batch, first_sample, size, begin, middle)
        return add(left, self._tree(state, batch, first_sample, size, middle, end))

    def _accumulated(self, state: StateTensors, part: Batch, first_sample: tf.Tensor, size: int) -> Contribution:
        micro = size // self.accumulate

        def contribution(i: tf.Tensor) -> Contribution:
            rows = {name: _rows(value, i * micro, micro) for name, value in part.items()}
            return self._micro_batch(state, rows, first_sample + tf.cast(i * micro, tf.int64), micro)

        total = contribution(tf.constant(0))
        if self.accumulate == 1:
            return total
        _, total = tf.while_loop(
            lambda i, _: i < self.accumulate,
            lambda i, total: (i + 1, add(total, contribution(i))),
            (tf.constant(1), total),
        )
        return total

    def _micro_batch(
        self, state: StateTensors, batch: Batch, first_sample: tf.Tensor, num_samples: int | None
    ) -> Contribution:
        thawing = self.thawing
        if thawing is None:
            return self._contribution(state, batch, first_sample, num_samples)
        # Nothing is frozen in the first branch, which is traced first: it finds out what the forward pass changes.
        branches = [
            partial(self._staged_contribution, state, batch, first_sample, num_samples, thawing.frozen_layers(i))
            for i in range(len(thawing.stages) + 1)
        ]
        return tf.switch_case(thawing.num_frozen(state.step), branches)  # type: ignore[return-value]

    def _staged_contribution(
        self,
        state: StateTensors,
        batch: Batch,
        first_sample: tf.Tensor,
        num_samples: int | None,
        layers: Sequence[keras.layers.Layer],
    ) -> Contribution:
        """The same with some layers frozen, in the layout of one without: what they lack is zero."""
        if not layers:
            return self._contribution(state, batch, first_sample, num_samples)
        trainable, others = self.model.trainable_variables, self.model.non_trainable_variables
        names = [id(v) for v in (*trainable, *others)]
        values = dict(zip(names, (*state.trainable, *state.non_trainable), strict=True))
        changed = self.changed
        with frozen(layers):
            left, rest = self.model.trainable_variables, self.model.non_trainable_variables
            partly = state._replace(
                trainable=tuple(values[id(v)] for v in left), non_trainable=tuple(values[id(v)] for v in rest)
            )
            found = self._contribution(partly, batch, first_sample, num_samples)
        gradients = dict(zip(map(id, left), found.gradients, strict=True))
        statistics = {id(rest[i]): value for i, value in zip(self.changed, found.statistics, strict=True)}
        self.changed = changed
        return Contribution(
            tuple(gradients.get(id(v), tf.zeros_like(values[id(v)])) for v in trainable),
            tuple(statistics.get(id(others[i]), tf.zeros_like(state.non_trainable[i])) for i in changed),
            found.sums,
        )

    def _contribution(
        self, state: StateTensors, batch: Batch, first_sample: tf.Tensor, num_samples: int | None
    ) -> Contribution:
        assert self.exchange is not None or not self.is_synchronized, "a strategy that cuts the batch sets it"
        trainable = list(state.trainable)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trainable)
            with (
                keyed_randomness(self.seed, state.step, first_sample, num_samples),
                global_statistics(self.exchange, first_sample),
            ):
                outputs, non_trainable, penalties = self.model.stateless_call(
                    trainable,
                    list(state.non_trainable),
                    self.task.inputs(batch),
                    training=True,
                    return_losses=True,
                )
            losses, weights = self.task.loss(outputs, batch)
            loss, weight = tf.reduce_sum(losses), tf.reduce_sum(weights)
            if penalties:
                # Weighted like the samples, so that over all parts a penalty counts once.
                loss += weight * tf.add_n([tf.cast(penalty, tf.float32) for penalty in penalties])
            objective = tf.math.divide_no_nan(loss, weight) if self.whole else loss / self.batch_size
            if state.loss_scale:
                objective *= state.loss_scale[0]
        gradients = tape.gradient(objective, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self.changed = [
            i for i, (old, new) in enumerate(zip(state.non_trainable, non_trainable, strict=True)) if new is not old
        ]
        statistics = tuple(non_trainable[i] - state.non_trainable[i] for i in self.changed)
        sums = self.metrics.pack(loss, weight, self.task.metric_sums(outputs, batch))
        return Contribution(tuple(tf.convert_to_tensor(g) for g in gradients), statistics, sums)


def _rows(value: tf.Tensor, begin: tf.Tensor, size: int) -> tf.Tensor:
    rows = tf.slice(value, [begin, *[0] * (len(value.shape) - 1)], [size, *value.shape[1:]])
    return tf.ensure_shape(rows, [size, *value.shape[1:]])


GradientFunction = Callable[[StateTensors, Batch, tf.Tensor], Contribution]
