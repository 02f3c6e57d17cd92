"""One device: gradients and apply are one function, and the state is carried from step to step as tensors."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.evaluation import EvaluationStep, EvaluationSums
from trainer.strategies.inner_loop import evaluation_totals, fetch, packed_status
from trainer.strategies.strategy import EvaluationLoop, LoopResult, TrainLoop


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
        def loop(iterator, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
            start = state.read()
            start = start._replace(window=tf.where(empty_window, tf.zeros_like(start.window), start.window))

            def body(done, carried, waited_s, finite):
                batch, wait_s = fetch(iterator, done)
                new, finite = compute(carried, batch)
                # Pointers, not values, are selected: a cond over identities costs no copy.
                kept = tf.cond(finite, lambda: new, lambda: carried)
                return done + 1, kept, waited_s + wait_s, finite

            _, end, waited_s, finite = tf.while_loop(
                lambda done, _, __, finite: tf.logical_and(done < num_steps, finite),
                body,
                (tf.constant(0), start, tf.constant(0.0, tf.float64), tf.constant(True)),
            )
            state.write(end)
            return LoopResult(end.window, packed_status(end.step, waited_s, finite))

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
