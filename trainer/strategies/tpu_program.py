"""A loop of whole steps as one program for a replica on a TPU.

Everything between two looks of the host is in it: gradients, the sum over the replicas, the update, and the decision to
stop at a step that is not finite. `phalanx check --tpu` compiles this very function, with XLA's own collective in place
of the strategy's.

Shape legend: K steps in a block, b samples of a replica.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.state import TrainState
from trainer.step.build import Step
from trainer.step.state_tensors import Contribution, StateTensors
from trainer.strategies.inner_loop import gathered_batch_of, packed_status
from trainer.strategies.strategy import Block, LoopResult

SumOverReplicas = Callable[[list[tf.Tensor]], list[tf.Tensor]]
"""The sum of each tensor over all replicas."""

Program = Callable[[Block, tf.Tensor, tf.Tensor, tf.Tensor], LoopResult]
"""As `trainer.strategies.strategy.TrainLoop`, for the part of a block that one replica computes."""


def replica_program(
    step: Step, state: TrainState, sum_over_replicas: SumOverReplicas, replica: Callable[[], tf.Tensor]
) -> Program:
    """The loop of one replica; to be traced where the variables of `state` are the replica's own.

    Args:
        step: Both halves.
        state: Read at the beginning and written at the end; between them it is carried through the loop.
        sum_over_replicas: Called once a step, and for each exchange of statistics within it.
        replica: Gives the number of the replica among all, an integer scalar. One program runs on all of them, so it is
            a tensor.
    """

    if step.gradients.is_synchronized:
        step.gradients.exchange = lambda sums, _: sum_over_replicas([sums])[0]

    def program(block: Block, first: tf.Tensor, num_steps: tf.Tensor, empty_window: tf.Tensor) -> LoopResult:
        size = next(iter(block.values())).shape[1]
        assert size is not None, "refused before: a program for a TPU has one size of batch"
        position = tf.cast(replica(), tf.int64) * size

        def advance(old: StateTensors, batch: Block) -> tuple[StateTensors, tf.Tensor]:
            contribution = step.gradients(old, batch, position)
            new, finite = step.finish(old, _summed(contribution, sum_over_replicas))
            # A choice by element is fused with the update; the sum is every replica's, so that all choose alike.
            return _chosen(finite, new, old), finite

        def body(done: tf.Tensor, _: tf.Tensor, old: StateTensors) -> tuple[tf.Tensor, tf.Tensor, StateTensors]:
            new, finite = advance(old, gathered_batch_of(block, first + done))
            return done + 1, finite, new

        begin = _read(state)
        begin = begin._replace(window=tf.where(empty_window, tf.zeros_like(begin.window), begin.window))
        _, finite, end = tf.while_loop(
            lambda done, finite, _: tf.logical_and(done < num_steps, finite),
            body,
            (tf.constant(0), tf.constant(True), begin),
        )
        _write(state, end)
        return LoopResult(end.window, packed_status(end.step, finite))

    return program


def _summed(contribution: Contribution, sum_over_replicas: SumOverReplicas) -> Contribution:
    return tf.nest.pack_sequence_as(contribution, sum_over_replicas(tf.nest.flatten(contribution)))


def _chosen(finite: tf.Tensor, new: StateTensors, old: StateTensors) -> StateTensors:
    chosen = tf.nest.map_structure(lambda one, other: one if one is other else tf.where(finite, one, other), new, old)
    return tf.nest.map_structure(lambda value, like: tf.ensure_shape(value, like.shape), chosen, old)


# Through the handle, because a variable of TPUStrategy refuses `assign` in a replica or adds a reduction of its own.
def _read(state: TrainState) -> StateTensors:
    return tf.nest.map_structure(_value_of, state.placed)


def _value_of(variable: Any) -> tf.Tensor:
    value = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return tf.ensure_shape(value, variable.shape)


def _write(state: TrainState, values: StateTensors) -> None:
    for variable, value in zip(tf.nest.flatten(state.placed), tf.nest.flatten(values), strict=True):
        tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
