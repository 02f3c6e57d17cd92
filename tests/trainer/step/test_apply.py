import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import small_session
from trainer.step import loss_scale
from trainer.step.state_tensors import Contribution

SGD = {"name": "sgd", "learning_rate": 0.5}


def applied(gradient: float, optimizer: dict | None = None, weight: float = 1.0, scale=None, loss=1.0, **change):
    """The state before and after a step whose gradients are all `gradient`."""
    session = small_session(optimizer={**SGD, **(optimizer or {})}, **change)
    before = session.state.read()
    if scale is not None:
        before = before._replace(loss_scale=(tf.constant(scale), before.loss_scale[1]))
    sums = np.zeros(session.step.window.metrics.size, np.float32)
    sums[:2] = loss, weight
    gradients = tuple(tf.fill(t.shape, gradient) for t in before.trainable)
    after = session.step.apply(before, Contribution(gradients, (), tf.constant(sums)), [])
    return session, before, after


def changes(before, after) -> np.ndarray:
    return np.concatenate(
        [np.ravel(new - old) for old, new in zip(before.trainable, after.state.trainable, strict=True)]
    )


def test_the_global_norm_is_clipped_and_reported():
    session, before, after = applied(3.0, {"clip_norm": 0.1})
    change = changes(before, after)
    assert np.linalg.norm(change) == pytest.approx(0.5 * 0.1, rel=1e-5)
    norm = 3.0 * np.sqrt(change.size)
    figures = session.step.window.figures(after.state.window.numpy())
    assert figures["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert figures["learning_rate"] == 0.5


def test_a_small_gradient_is_not_clipped():
    _, before, after = applied(1e-3, {"clip_norm": 10.0})
    np.testing.assert_allclose(changes(before, after), -0.5e-3, rtol=1e-3)


def test_every_element_is_clipped_by_value():
    _, before, after = applied(-3.0, {"clip_value": 0.25})
    np.testing.assert_allclose(changes(before, after), 0.5 * 0.25, rtol=1e-4)


def test_the_mean_is_over_the_weights_of_the_global_batch():
    # Two parts of a batch of 16 whose samples weigh 10 in all: each part gave sum / 16.
    _, before, after = applied(1.0, weight=10.0, train={"accumulate": 2})
    np.testing.assert_allclose(changes(before, after), -0.5 * 16 / 10, rtol=1e-5)


def test_the_average_of_the_weights_follows_them():
    _, before, after = applied(1.0, train={"ema": 0.75})
    for old, new, average in zip(before.trainable, after.state.trainable, after.state.ema, strict=True):
        np.testing.assert_allclose(average, 0.75 * old + 0.25 * new, rtol=1e-5, atol=1e-7)


def test_evaluation_reads_the_average_where_it_is_asked_for():
    session = small_session(train={"ema": 0.9}, evaluate={"every": "1ep", "ema": True})
    plain = small_session(train={"ema": 0.9}, evaluate={"every": "1ep", "ema": False})
    for one in (session, plain):
        for name, variable in one.state.variables.items():
            if name.startswith("model/") and name.endswith("kernel"):
                variable.assign(variable * 5.0)  # the averages stay as they were
    assert session.evaluator is not None and plain.evaluator is not None
    assert session.evaluator.measure()["loss"] < plain.evaluator.measure()["loss"]


@pytest.mark.parametrize("clipping", [{}, {"clip_norm": 1.0}, {"clip_value": 1.0}], ids=["none", "norm", "value"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_found_beside_a_finite_loss(bad, clipping):
    session, _, after = applied(bad, clipping)
    assert not after.finite
    figures = session.step.window.figures(applied(1.0, clipping)[2].state.window.numpy())
    assert ("gradient_norm" in figures) == ("clip_norm" in clipping)


def test_an_overflow_keeps_the_weights_and_halves_the_scale():
    session, before, after = applied(np.inf, precision="mixed_float16")
    assert after.finite  # the loss is: training goes on
    assert not changes(before, after).any()
    assert after.state.loss_scale[0].numpy() == loss_scale.INITIAL / 2
    assert after.state.step == 1 and session.step.window.figures(after.state.window.numpy())["skipped_steps"] == 1
    for old, new in zip(before.optimizer, after.state.optimizer, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("gradient", "loss"), [(np.inf, 1.0), (1.0, np.inf), (np.nan, np.nan)])
def test_what_overflows_is_skipped_until_no_smaller_scale_could_explain_it(gradient, loss):
    session, before, after = applied(gradient, loss=loss, scale=2.0, precision="mixed_float16")
    assert after.finite and after.state.loss_scale[0].numpy() == 1.0
    assert not changes(before, after).any()
    window = after.state.window.numpy()
    assert np.isfinite(window).all() and session.step.window.figures(window)["skipped_steps"] == 1

    _, _, after = applied(gradient, loss=loss, scale=1.0, precision="mixed_float16")
    assert not after.finite


def test_the_scale_doubles_after_many_good_steps_and_has_bounds():
    def adjusted(scale: float, steps: int, usable: bool) -> tuple[float, int]:
        new = loss_scale.adjusted((tf.constant(scale), tf.constant(steps)), tf.constant(usable))
        return float(new[0]), int(new[1])

    last = loss_scale.GROWTH_INTERVAL - 1
    assert adjusted(1024.0, 5, True) == (1024.0, 6)
    assert adjusted(1024.0, last, True) == (2048.0, 0)
    assert adjusted(1024.0, last, False) == (512.0, 0)
    assert adjusted(1.0, 0, False) == (1.0, 0)
    assert adjusted(2.0**24, last, True) == (2.0**24, 0)


def penalised(schema) -> keras.Model:
    inputs = keras.Input((12,))
    return keras.Model(inputs, keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))(inputs))


def test_a_penalty_counts_once_however_the_batch_is_cut():
    model = {"name": "tests.trainer.step.test_apply:penalised"}
    gradients = []
    for accumulate in (1, 4):
        session = small_session(model=model, optimizer=SGD, train={"accumulate": accumulate})
        before = session.state.read()
        block, first, _ = session.blocks(0, 1).take(1)
        batch = {name: value[first] for name, value in block.items()}
        contribution = session.step.gradients(before, batch, tf.constant(0, tf.int64))
        gradients.append(changes(before, session.step.finish(before, contribution)))
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
