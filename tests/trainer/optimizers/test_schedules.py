from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from trainer.config.optimizer import ScheduleConfig
from trainer.optimizers.schedules import Schedule

RATE, TOTAL, EPOCH = 0.3, 100, 20


def rates(total: int = TOTAL, jit: bool = True, **keys: Any) -> np.ndarray:
    schedule = Schedule(RATE, TypeAdapter(ScheduleConfig).validate_python(keys), total, EPOCH)
    compiled = tf.function(lambda step: schedule(step), jit_compile=jit)
    return np.array([compiled(tf.constant(step, tf.int64)) for step in range(total + 5)])


def keras_rates(schedule) -> np.ndarray:
    return np.array([keras.ops.convert_to_numpy(schedule(step)) for step in range(TOTAL + 5)])


def test_constant():
    np.testing.assert_array_equal(rates(name="constant"), np.float32(RATE))


def test_cosine_is_that_of_keras():
    expected = keras_rates(keras.optimizers.schedules.CosineDecay(RATE, TOTAL, alpha=0.1))
    np.testing.assert_allclose(rates(name="cosine", end_factor=0.1), expected, rtol=1e-5)


def test_cosine_after_warmup_is_that_of_keras():
    expected = keras_rates(
        keras.optimizers.schedules.CosineDecay(0.0, TOTAL - 10, alpha=0.1, warmup_target=RATE, warmup_steps=10)
    )
    actual = rates(name="cosine", end_factor=0.1, warmup="10st")
    np.testing.assert_allclose(actual[10:], expected[10:], rtol=1e-5)
    # Keras begins with a step of rate 0; here the warm-up is a step ahead.
    np.testing.assert_allclose(actual[:9], expected[1:10], rtol=1e-5)
    assert actual[9] == pytest.approx(RATE) and actual[0] == pytest.approx(RATE / 10)


def test_linear_is_that_of_keras():
    expected = keras_rates(keras.optimizers.schedules.PolynomialDecay(RATE, TOTAL, end_learning_rate=0.2 * RATE))
    np.testing.assert_allclose(rates(name="linear", end_factor=0.2), expected, rtol=1e-5)


def test_linear_reaches_zero_at_the_end_and_stays():
    actual = rates(name="linear")
    assert actual[TOTAL - 1] > 0
    np.testing.assert_array_equal(actual[TOTAL:], 0)


def test_step_is_that_of_keras_with_boundaries_in_epochs():
    # Keras keeps the old rate at the boundary itself.
    expected = keras_rates(keras.optimizers.schedules.PiecewiseConstantDecay([39, 79], [RATE, RATE * 0.1, RATE * 0.01]))
    np.testing.assert_allclose(rates(name="step", boundaries=["2ep", "80st"]), expected, rtol=1e-5)


def test_compiled_and_not_compiled_are_equal():
    compiled, plain = (rates(jit=jit, name="cosine", warmup="1ep") for jit in (True, False))
    np.testing.assert_allclose(compiled, plain, rtol=1e-6, atol=1e-9)


def test_warmup_longer_than_training_is_refused():
    with pytest.raises(ValueError, match=r"warmup=5ep is 100 steps, which must be fewer than the training's 100"):
        rates(name="cosine", warmup="5ep")


def test_boundaries_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"must increase, but they are the steps \[40, 30\]"):
        rates(name="step", boundaries=["2ep", "30st"])
