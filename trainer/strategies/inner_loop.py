"""What the inner loops of all adapters share: taking a batch from a block, and adding up an evaluation."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainer.step.evaluation import EvaluationSums
from trainer.step.gradients import Batch
from trainer.strategies.strategy import Block


def batch_of(block: Block, index: tf.Tensor | int) -> Batch:
    """One global batch of a block; a slice along the first dimension shares its memory."""
    return {name: value[index] for name, value in block.items()}


def gathered_batch_of(block: Block, index: tf.Tensor) -> Batch:
    """The same inside of an XLA program, which a slice would tie to the first index: it would be compiled anew for
    every other one."""
    return {name: tf.gather(value, index) for name, value in block.items()}


def packed_status(steps: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
    """`LoopResult.status`: one small tensor is one transfer from the device."""
    return tf.stack([steps, 1 - tf.cast(finite, tf.int64)])


def evaluation_totals(
    iterator: object, num_batches: tf.Tensor, num_sums: int, evaluate: Callable[[Batch], EvaluationSums]
) -> EvaluationSums:
    """Sums and collected outputs of `num_batches` batches.

    Sums are added in float64, which counts exactly to 2**53. Collected outputs are joined to [samples, ...].
    """
    first = evaluate(iterator.get_next())  # type: ignore[attr-defined]
    arrays = {
        name: tf.TensorArray(value.dtype, num_batches, element_shape=value.shape).write(0, value)
        for name, value in first.collected.items()
    }

    def body(done, totals, arrays):
        sums, collected = evaluate(iterator.get_next())  # type: ignore[attr-defined]
        arrays = {name: array.write(done, collected[name]) for name, array in arrays.items()}
        return done + 1, totals + tf.cast(sums, tf.float64), arrays

    start = (tf.constant(1), tf.cast(tf.ensure_shape(first.sums, [num_sums]), tf.float64), arrays)
    _, totals, arrays = tf.while_loop(lambda done, *_: done < num_batches, body, start)
    return EvaluationSums(totals, {name: array.concat() for name, array in arrays.items()})


def in_sample_order(values: tf.Tensor, num_batches: tf.Tensor) -> tf.Tensor:
    """What workers have collected: from [W, K * b, ...], worker by worker, to [K * W * b, ...], batch by batch."""
    shape = tf.shape(values)
    split = tf.reshape(values, tf.concat([[shape[0], num_batches, -1], shape[2:]], 0))
    by_batch = tf.transpose(split, [1, 0, 2, *range(3, len(values.shape) + 1)])
    return tf.reshape(by_batch, tf.concat([[-1], shape[2:]], 0))
