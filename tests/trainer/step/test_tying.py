"""Weights that stay zero, or equal, whatever the optimizer would do to them."""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.trainer.sessions import losses, small_config, small_session

START = {"path": "a model that was made sparse"}
KERNEL = "hidden_0/kernel"
ADAM = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}


def begun(kernel: np.ndarray, **change):
    """A session whose first kernel is this one."""
    session = small_session(**{"warm_start": START, "optimizer": ADAM, **change})
    variable = next(v for v in session.model.trainable_variables if v.path.endswith(KERNEL))
    variable.assign(kernel)
    return session, variable


def sparse_kernel() -> np.ndarray:
    kernel = np.random.default_rng(0).normal(0, 0.3, (12, 16)).astype(np.float32)
    kernel[::2, 1::2] = 0
    return kernel


@pytest.mark.parametrize("change", [{}, {"train": {"xla": True}}, {"train": {"ema": 0.9}}])
def test_zeros_stay_zero_and_the_rest_is_trained(change):
    kernel = sparse_kernel()
    session, variable = begun(kernel, tied={"variables": ["kernel$"]}, **change)
    losses(session, 3)
    trained = np.asarray(variable.numpy())
    assert np.array_equal(trained == 0, kernel == 0)
    assert np.all(trained[kernel != 0] != kernel[kernel != 0])
    free, without = begun(kernel, **change)
    losses(free, 3)
    assert np.any(without.numpy()[kernel == 0] != 0)


def test_equal_weights_stay_equal_and_take_the_mean_of_their_updates():
    values = np.float32([-0.5, -0.1, 0, 0.2, 0.6])
    group = np.random.default_rng(0).integers(0, len(values), (12, 16))
    tied = {"variables": [f"{KERNEL}$"], "equal": True}
    session, variable = begun(values[group], tied=tied)
    free, without = begun(values[group])
    losses(session, 1)
    losses(free, 1)
    one, other = variable.numpy(), without.numpy()
    for number, value in enumerate(values):
        (now,) = set(one[group == number].tolist())
        assert now == 0 if value == 0 else now == pytest.approx(other[group == number].mean(), abs=1e-6) != value
    losses(session, 4)
    assert len(np.unique(variable.numpy())) == len(values) and not np.array_equal(variable.numpy(), one)
    bias = next(v for v in session.model.trainable_variables if v.path.endswith("hidden_0/bias"))
    assert np.all(bias.numpy() != 0)  # it began with zeros, and is not tied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warm_start": None}, "set warm_start.path"),
        ({"train": {"xla": True}, "tied": {"variables": ["."], "equal": True}}, "set train.xla=false"),
        ({"strategy": {"name": "parameter_server"}}, "weights in pieces"),
        ({"strategy": {"name": "elastic"}, "elastic": {"shard_optimizer": True}}, "remove one of them"),
        ({"tied": {"variables": ["."], "zeros": False}}, "ties nothing"),
    ],
)
def test_what_cannot_be_tied_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        small_config(**{"tied": {"variables": ["."]}, "warm_start": START, **change})


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(ValueError, match="fits no trainable variable"):
        small_session(tied={"variables": ["convolution"]}, warm_start=START)
