"""What the inner loops of all adapters share: fetching a batch with its waiting time, and adding up an evaluation."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from trainer.step.evaluation import EvaluationSums
from trainer.step.gradients import Batch


def fetch(iterator: object, after: tf.Tensor) -> tuple[Batch, tf.Tensor]:
    """The next batch, and the seconds (float64) that the loop waited for it; not begun before `after` is known.

    With TensorFlow's op determinism, which forbids the clock, the seconds are NaN.
    """
    if is_op_determinism_enabled():
        return iterator.get_next(), tf.constant(float("nan"), tf.float64)  # type: ignore[attr-defined]
    with tf.control_dependencies([after]):
        begin = tf.timestamp()
    with tf.control_dependencies([begin]):
        batch = iterator.get_next()  # type: ignore[attr-defined]
    with tf.control_dependencies(tf.nest.flatten(batch)):
        return batch, tf.timestamp() - begin


def packed_status(steps: tf.Tensor, waited_s: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
    """`LoopResult.status`: one small tensor is one transfer from the device."""
    return tf.stack([tf.cast(steps, tf.float64), waited_s, 1.0 - tf.cast(finite, tf.float64)])


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
