"""Batch normalisation of parts that exchange their sums, against that of the whole batch."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.step.global_statistics import LayerInLoop, global_statistics
from trainer.strategies.elastic_loop import OwnTime
from trainer.strategies.part_meeting import PartMeeting

# More than TensorFlow has threads: parts that kept one while they wait for each other would wait for ever.
NUM_PARTS, ROWS = (os.cpu_count() or 1) + 2, 3
SHAPE = (NUM_PARTS * ROWS, 2, 5)


def arrays(*shape: int) -> tf.Tensor:
    # A mean far from zero beside a small variance, of which E[x^2] - E[x]^2 in float32 would leave little.
    return tf.constant(np.random.default_rng(0).normal(20.0, 0.1, shape), tf.float32)


def outcome(layer: keras.layers.Layer, x: tf.Tensor, wanted: tf.Tensor, mask: tf.Tensor | None) -> list[tf.Tensor]:
    """Output, gradients of a loss by input and weights, and the moving averages afterwards."""
    trainable = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch([x, *trainable])
        others = [v.value for v in layer.non_trainable_variables]
        y, moving, *_ = layer.stateless_call(trainable, others, x, training=True, mask=mask)
        loss = tf.reduce_sum(tf.square(y - wanted))
    gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, [x, *trainable])]
    return [y, *gradients, *moving]


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_parts_are_normalised_as_the_whole_batch_is(axis, masked):
    if masked and axis == 1:
        return  # a mask lacks the last axis, which is that of the channels
    x, wanted = arrays(*SHAPE), tf.random.stateless_normal(SHAPE, [1, 2])
    mask = tf.constant(np.random.default_rng(1).random(SHAPE[:2]) < 0.7) if masked else None
    layer = keras.layers.BatchNormalization(
        axis=axis, momentum=0.5, moving_mean_initializer=keras.initializers.Constant(19.5)
    )
    layer.build(SHAPE)
    expected = outcome(layer, x, wanted, mask)
    meeting = PartMeeting(NUM_PARTS, ROWS, OwnTime())

    @tf.function
    def part(number: tf.Tensor) -> list[tf.Tensor]:
        rows = [None if value is None else value[number * ROWS : (number + 1) * ROWS] for value in (x, wanted, mask)]
        with global_statistics(meeting.exchange, tf.cast(number * ROWS, tf.int64)):
            return outcome(
                layer, *(value if value is None else tf.ensure_shape(value, [ROWS, *value.shape[1:]]) for value in rows)
            )

    part.get_concrete_function(tf.TensorSpec([], tf.int32))
    parts = meeting.compute(lambda number: part(tf.constant(number)), range(NUM_PARTS))
    y, dx, dgamma, dbeta, *moving = zip(*parts, strict=True)
    found = [tf.concat(y, 0), tf.concat(dx, 0), tf.add_n(dgamma), tf.add_n(dbeta)]
    for ours, theirs in zip(found, expected[:4], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3 * np.abs(theirs).max())
    for each, theirs in zip(moving, expected[4:], strict=True):
        np.testing.assert_allclose(each[0], theirs, rtol=1e-5)
        assert all(np.array_equal(each[0], other) for other in each)


def test_a_part_that_fails_ends_the_others():
    meeting = PartMeeting(2, ROWS, OwnTime())

    @tf.function
    def part(number: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.assert_less(number, tf.constant(1), "the second part")]):
            return meeting.exchange(tf.ones([3]), tf.cast(number * ROWS, tf.int64))

    part.get_concrete_function(tf.TensorSpec([], tf.int32))
    with pytest.raises(tf.errors.InvalidArgumentError, match="the second part"):
        meeting.compute(lambda number: part(tf.constant(number)), range(2))
    [total] = meeting.compute(lambda number: part(tf.constant(number)), range(1))
    np.testing.assert_array_equal(total, np.ones(3))


def test_a_layer_in_a_loop_is_refused():
    layer = keras.layers.BatchNormalization(name="inner")
    layer.build((None, 2))

    @tf.function(autograph=False)
    def repeated() -> tf.Tensor:
        with global_statistics(lambda sums, _: sums, tf.constant(0, tf.int64)):
            return tf.while_loop(
                lambda i, _: i < 2, lambda i, x: (i + 1, layer(x, training=True)), (tf.constant(0), tf.ones([4, 2]))
            )[1]

    with pytest.raises(LayerInLoop, match="inner is called within a loop"):
        repeated()
