"""A replica on each device of this machine, with equal weights (`tf.distribute.MirroredStrategy`).

Every replica computes the gradients of its slice, the contributions are summed over the replicas in one packed
all-reduce, and every replica applies the same sum to its own copy of the state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import tensorflow as tf

from trainer.data.shard import WHOLE, Shard
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.step.state_tensors import StateTensors
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.inner_loop import batch_of, evaluation_totals, packed_status
from trainer.strategies.replicas import first_position, own_copy, own_slice
from trainer.strategies.strategy import Agreement, Block, EvaluationLoop, LoopResult, Regrouping, Replication, TrainLoop
from trainer.strategies.variable_update import compiled_update

_Tensors = TypeVar("_Tensors")


class Mirrored:
    """Data parallelism over the devices of one process.

    Args:
        devices: TensorFlow's names of at least one device, e.g. ["GPU:0", "GPU:1"].
    """

    shard: Shard = WHOLE
    agreement: Agreement | None = None
    arrivals: Callable[[], ArrivalCount] | None = None
    regrouping: Regrouping | None = None
    replication: Replication | None = None

    def __init__(self, devices: Sequence[str]) -> None:
        self._strategy = tf.distribute.MirroredStrategy(
            list(devices), cross_device_ops=None if "GPU" in devices[0] else tf.distribute.ReductionToOneDevice()
        )
        self.num_replicas = self._strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager:
        """Variables made within it have a copy on every device."""
        return self._strategy.scope()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop that runs all replicas step by step; the state stays in the variables of each device."""
        gradients = step.gradients
        if gradients.is_synchronized:
            gradients.exchange = lambda sums, _: _sum_over_replicas(sums)
        if step.compiles_gradients:
            gradients = tf.function(gradients, jit_compile=True, autograph=step.converts)

        def replica_step(batch: Batch) -> tf.Tensor:
            values = state.read(own_copy)
            contribution = gradients(
                values, own_slice(batch, self.num_replicas), first_position(batch, self.num_replicas)
            )
            # The total is that of all replicas, so that all of them decide alike; outside of what is compiled, as on
            # one device, so that XLA changes the variables in place.
            total = _sum_over_replicas(contribution)
            finite = step.apply.accepts(values.loss_scale, total)
            update = compiled_update(step, state, own_copy)
            return tf.cond(finite, lambda: update(total), lambda: finite)

        @tf.function(autograph=step.converts)
        def loop(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            window = state.variables["window"]
            window.assign(tf.where(empty_window, tf.zeros_like(window), window))

            def body(done, _):
                finite = self._strategy.run(replica_step, args=(batch_of(block, first + done),))
                return done + 1, self._strategy.experimental_local_results(finite)[0]

            _, finite = tf.while_loop(
                lambda done, finite: tf.logical_and(done < num_steps, finite), body, (tf.constant(0), tf.constant(True))
            )
            end: StateTensors = state.read()
            return LoopResult(end.window, packed_status(end.step, finite))

        return loop  # type: ignore[return-value]

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """All batches, each spread over the replicas."""
        compute = tf.function(step, jit_compile=True) if step.xla else step

        def replica_sums(batch: Batch) -> EvaluationSums:
            trainable = [own_copy(v).read_value() for v in state.evaluation_weights(step.ema)]
            own = own_slice(batch, self.num_replicas)
            sums, collected = compute(trainable, list(state.read(own_copy).non_trainable), own)
            return EvaluationSums(_sum_over_replicas(sums), collected)

        def evaluate(batch: Batch) -> EvaluationSums:
            sums, collected = self._strategy.run(replica_sums, args=(batch,))
            local = self._strategy.experimental_local_results
            return EvaluationSums(
                local(sums)[0], {name: tf.concat(local(values), 0) for name, values in collected.items()}
            )

        @tf.function
        def loop(iterator, num_batches: tf.Tensor) -> EvaluationSums:
            return evaluation_totals(iterator, num_batches, step.metrics.size, evaluate)

        return loop


def _sum_over_replicas(values: _Tensors) -> _Tensors:
    """The sum of each tensor over the replicas, in one packed reduction."""
    flat = tf.nest.flatten(values)
    reduced = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)
    return tf.nest.pack_sequence_as(values, reduced)
