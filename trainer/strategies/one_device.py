"""One device: both halves of a step, one after the other; the state stays in the variables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tensorflow as tf

from trainer.data.shard import WHOLE, Shard
from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.step.state_tensors import Contribution
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.inner_loop import batch_of, evaluation_totals, gathered_batch_of, packed_status
from trainer.strategies.strategy import Agreement, Block, EvaluationLoop, LoopResult, Regrouping, Replication, TrainLoop
from trainer.strategies.variable_update import compiled_update, variable_update


class OneDevice:
    """The first GPU if there is one, else the CPU."""

    num_replicas = 1
    shard: Shard = WHOLE
    agreement: Agreement | None = None
    arrivals: Callable[[], ArrivalCount] | None = None
    regrouping: Regrouping | None = None
    replication: Replication | None = None

    def scope(self) -> contextlib.AbstractContextManager:
        """Nothing to place: TensorFlow's default device is the one."""
        return contextlib.nullcontext()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop whose steps read and write the variables."""
        is_program = step.xla == "loop"
        take = gathered_batch_of if is_program else batch_of
        advance = _advance(step, state)

        @tf.function(jit_compile=is_program, autograph=step.converts)
        def loop(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            window = state.variables["window"]
            window.assign(tf.where(empty_window, tf.zeros_like(window), window))
            _, finite = tf.while_loop(
                lambda done, finite: tf.logical_and(done < num_steps, finite),
                lambda done, _: (done + 1, advance(take(block, first + done))),
                (tf.constant(0), tf.constant(True)),
            )
            return LoopResult(window.read_value(), packed_status(state.variables["step"].read_value(), finite))

        return loop  # type: ignore[return-value]

    def evaluation_loop(self, step: EvaluationStep, state: TrainState) -> EvaluationLoop:
        """All batches, one after the other, in one call."""
        compute = tf.function(step, jit_compile=True) if step.xla else step

        @tf.function
        def loop(iterator, num_batches: tf.Tensor) -> EvaluationSums:
            trainable = [v.read_value() for v in state.evaluation_weights(step.ema)]
            non_trainable = list(state.read().non_trainable)
            return evaluation_totals(
                iterator, num_batches, step.metrics.size, lambda batch: compute(trainable, non_trainable, batch)
            )

        return loop


def _advance(step: Step, state: TrainState) -> Callable[[Batch], tf.Tensor]:
    """One step on the variables; says whether it was finite, and leaves them alone where it was not."""
    if step.xla == "loop":
        change = variable_update(step, state)
        return lambda batch: change(step.gradients(state.read(), batch, tf.constant(0, tf.int64)))

    def gradients(batch: Batch) -> tuple[Contribution, tf.Tensor]:
        before = state.read()
        total = step.gradients(before, batch, tf.constant(0, tf.int64))
        return total, step.apply.accepts(before.loss_scale, total)

    if step.compiles_gradients:
        gradients = tf.function(gradients, jit_compile=True, autograph=step.converts)
    update = compiled_update(step, state)

    def advance(batch: Batch) -> tf.Tensor:
        total, finite = gradients(batch)
        # Outside of what is compiled: a choice between old and new would keep XLA from changing the variables in place,
        # and on a CPU new memory for every step's state takes longer than the arithmetic.
        return tf.cond(finite, lambda: update(total), lambda: finite)

    return advance
