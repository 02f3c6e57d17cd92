"""One device: gradients and apply are one function, and the state is carried from step to step as tensors."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.strategies.inner_loop import batch_of, evaluation_totals, packed_status
from trainer.strategies.strategy import Block, EvaluationLoop, LoopResult, TrainLoop


class OneDevice:
    """The first GPU if there is one, else the CPU."""

    num_replicas = 1

    def scope(self) -> contextlib.AbstractContextManager:
        """Nothing to place: TensorFlow's default device is the one."""
        return contextlib.nullcontext()

    def train_loop(self, step: Step, state: TrainState) -> TrainLoop:
        """A loop that reads the variables once, before its first step, and writes them once, after its last."""
        compute = tf.function(step.whole, jit_compile=True) if step.xla else step.whole

        @tf.function
        def loop(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            start = state.read()
            start = start._replace(window=tf.where(empty_window, tf.zeros_like(start.window), start.window))

            def body(done, carried, finite):
                new, finite = compute(carried, batch_of(block, first + done))
                # Pointers, not values, are selected: a cond over identities costs no copy.
                kept = tf.cond(finite, lambda: new, lambda: carried)
                return done + 1, kept, finite

            _, end, finite = tf.while_loop(
                lambda done, _, finite: tf.logical_and(done < num_steps, finite),
                body,
                (tf.constant(0), start, tf.constant(True)),
            )
            state.write(end)
            return LoopResult(end.window, packed_status(end.step, finite))

        return loop

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
