import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.step.randomness import keyed_randomness

WIDTHS = [1, 7, 8, 130]  # whole Philox counters, and samples that must be padded to them


def draw(layer: keras.Layer, x: np.ndarray, first: int, step: int = 5, seed: int = 1, xla: bool = False) -> np.ndarray:
    @tf.function(jit_compile=xla)
    def traced(x: tf.Tensor, step: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        with keyed_randomness(seed, step, first, x.shape[0]):
            return layer(x, training=True)

    return traced(tf.constant(x), tf.constant(step, tf.int64), tf.constant(first, tf.int64)).numpy()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize(
    "layer", [keras.layers.Dropout(0.5), keras.layers.GaussianNoise(1.0), keras.layers.GaussianDropout(0.3)], ids=str
)
def test_slices_draw_what_the_whole_batch_draws(layer, xla, width):
    x = np.ones((12, width), np.float32)
    whole = draw(layer, x, 0, xla=xla)
    for parts in (2, 3):
        size = 12 // parts
        slices = [draw(layer, x[:size], i * size, xla=xla) for i in range(parts)]
        np.testing.assert_array_equal(np.concatenate(slices), whole)


def test_a_model_that_folds_time_into_the_batch_is_cut_at_the_same_samples():
    x = np.ones((4, 3, 5), np.float32)

    class Folding(keras.Layer):
        def __init__(self):
            super().__init__()
            self.dropout = keras.layers.Dropout(0.5)

        def call(self, x, training=None):
            return self.dropout(tf.reshape(x, [-1, 5]), training=training)

    whole = draw(Folding(), x, 0)
    halves = [draw(Folding(), x[:2], 0), draw(Folding(), x[:2], 2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_step_seed_and_place_change_the_draw():
    x = np.ones((4, 64), np.float32)
    layer = keras.layers.Dropout(0.5)
    base = draw(layer, x, 0)
    assert (draw(layer, x, 0) == base).all()
    assert (draw(layer, x, 0, step=6) != base).any()
    assert (draw(layer, x, 0, seed=2) != base).any()
    two = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)])
    # If both layers drew one mask, half the numbers would be left, not a quarter.
    assert abs((draw(two, np.ones((64, 512), np.float32), 0) > 0).mean() - 0.25) < 0.02


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_dropout_keeps_its_rate_and_the_expected_value(rate):
    dropped = draw(keras.layers.Dropout(rate), np.ones((256, 1024), np.float32), 0)
    assert (dropped == 0).mean() == pytest.approx(rate, abs=0.005)
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    # Neighbouring samples and numbers are not correlated.
    mask = (dropped == 0) - rate
    for one, other in [(mask[:-1], mask[1:]), (mask[:, :-1], mask[:, 1:]), (mask[:, :-8], mask[:, 8:])]:
        assert abs((one * other).mean()) < 0.005


def test_noise_shape_is_one_mask_a_sample_or_one_for_all():
    x = np.ones((6, 4, 16), np.float32)
    rows = draw(keras.layers.Dropout(0.5, noise_shape=(None, 1, None)), x, 0)
    assert (rows == rows[:, :1]).all() and (rows[0] != rows[1]).any()
    shared = keras.layers.Dropout(0.5, noise_shape=(1, None, None))
    assert (draw(shared, x, 0) == draw(shared, x, 0)[0]).all()
    np.testing.assert_array_equal(draw(shared, x[:3], 3), draw(shared, x, 0)[3:])


def test_normal_noise_is_normal():
    drawn = draw(keras.layers.GaussianNoise(0.5), np.zeros((256, 1000), np.float32), 0)
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert drawn.std() == pytest.approx(0.5, abs=0.01)


def test_distributions_without_a_counter_differ_by_step_and_repeat():
    def drawn(step: int) -> np.ndarray:
        with keyed_randomness(0, tf.constant(step, tf.int64), tf.constant(0, tf.int64), 4):
            return np.asarray(keras.random.truncated_normal((4, 32), seed=keras.random.SeedGenerator(1)))

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).any()


def test_a_batch_of_unknown_size_is_drawn_like_a_known_one():
    layer = keras.layers.Dropout(0.5)

    @tf.function(input_signature=[tf.TensorSpec([None, 10])])
    def traced(x: tf.Tensor) -> tf.Tensor:
        with keyed_randomness(1, tf.constant(5, tf.int64), tf.constant(0, tf.int64), None):
            return layer(x, training=True)

    x = np.ones((5, 10), np.float32)
    np.testing.assert_array_equal(traced(tf.constant(x)).numpy(), draw(layer, x, 0))


def test_outside_a_step_keras_draws_as_before():
    x = np.ones((4, 8), np.float32)
    layer = keras.layers.Dropout(0.5, seed=1)
    first, second = layer(x, training=True).numpy(), layer(x, training=True).numpy()
    assert (first != second).any()
