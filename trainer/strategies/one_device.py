"""One device: gradients and apply are one function, and the state is carried from step to step as tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import tensorflow as tf

from trainer.data.shard import WHOLE, Shard
from trainer.state import TrainState
from trainer.step.apply import Applied
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.step.gradients import Batch
from trainer.step.state_tensors import StateTensors
from trainer.strategies.arrivals import ArrivalCount
from trainer.strategies.inner_loop import batch_of, evaluation_totals, gathered_batch_of, packed_status
from trainer.strategies.strategy import Agreement, Block, EvaluationLoop, LoopResult, Regrouping, TrainLoop


class OneDevice:
    """The first GPU if there is one, else the CPU."""

    num_replicas = 1
    shard: Shard = WHOLE
    agreement: Agreement | None = None
    arrivals: Callable[[], ArrivalCount] | None = None
    regrouping: Regrouping | None = None

    def scope(self) -> contextlib.AbstractContextManager:
        """Nothing to place: TensorFlow's default device is the one."""
        return contextlib.nullcontext()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop that reads the variables once, before its first step, and writes them once, after its last."""
        is_program = step.xla == "loop"
        compute = _compiled(step)
        choose = _select if is_program else _switch
        take = gathered_batch_of if is_program else batch_of

        @tf.function(jit_compile=is_program, autograph=step.converts)
        def loop(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            start = state.read()
            start = start._replace(window=tf.where(empty_window, tf.zeros_like(start.window), start.window))

            def body(done, carried, finite):
                new, finite = compute(carried, take(block, first + done))
                return done + 1, choose(finite, new, carried), finite

            _, end, finite = tf.while_loop(
                lambda done, _, finite: tf.logical_and(done < num_steps, finite),
                body,
                (tf.constant(0), start, tf.constant(True)),
            )
            state.write(end)
            return LoopResult(end.window, packed_status(end.step, finite))

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


def _compiled(step: Step) -> Callable[[StateTensors, Batch], Applied]:
    """Both halves of a step, with what is to be compiled of them."""
    if step.xla == "step":
        return tf.function(step.whole, jit_compile=True, autograph=step.converts)
    if step.xla == "update":
        finish = tf.function(step.finish, jit_compile=True, autograph=step.converts)
        return lambda state, batch: finish(state, step.gradients(state, batch, tf.constant(0, tf.int64)))
    return step.whole


def _switch(condition: tf.Tensor, new: StateTensors, old: StateTensors) -> StateTensors:
    """One of two states, by pointer: outside of XLA a cond over identities copies nothing."""
    return tf.cond(condition, lambda: new, lambda: old)


def _select(condition: tf.Tensor, new: StateTensors, old: StateTensors) -> StateTensors:
    """One of two states, element by element: XLA fuses it with the update, where a cond would copy both."""
    return tf.nest.map_structure(lambda one, other: tf.where(condition, one, other), new, old)
