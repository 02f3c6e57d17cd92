import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.pooling import HalvingMaxPool


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 8, 2), (1, 7, 5, 3), (2, 2, 3, 1)])
def test_value_and_gradient_are_those_of_max_pooling(shape, xla):
    # All values differ, so that no two maxima share a gradient.
    values = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape)
    x = tf.constant(values, tf.float32)

    def value_and_gradient(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            pooled = layer(x)
            loss = tf.reduce_sum(tf.square(pooled))
        return pooled, tf.convert_to_tensor(tape.gradient(loss, x))

    compute = tf.function(value_and_gradient, jit_compile=xla)
    results = [compute(layer) for layer in (HalvingMaxPool(), keras.layers.MaxPooling2D())]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_symbolic_shape():
    assert HalvingMaxPool()(keras.Input((7, 5, 3))).shape == (None, 3, 2, 3)


@pytest.mark.parametrize("xla", [False, True])
def test_the_form_follows_the_compiler(xla):
    function = tf.function(HalvingMaxPool(), jit_compile=xla).get_concrete_function(tf.TensorSpec([1, 4, 4, 1]))
    assert ("MaxPool" in {operation.type for operation in function.graph.get_operations()}) is not xla
