import numpy as np
import pytest

from delivery.shrink.request import Ties, request_of
from delivery.shrink.tying import clustered, sparsified, tie


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "hidden/kernel": (30, 20),
        "hidden/bias": (20,),
        "convolution/kernel": (3, 3, 8, 16),
        "out/kernel": (2, 3),
    }
    return {path: rng.normal(0, 1, shape).astype(np.float32) for path, shape in shapes.items()}


def test_the_largest_of_each_group_along_the_inputs_stay_as_they_are():
    kernel = weights()["convolution/kernel"]
    sparse = sparsified(kernel, 2, 4)
    groups = sparse.reshape(3, 3, 2, 4, 16)
    assert np.all((groups != 0).sum(axis=3) == 2)
    assert np.array_equal(sparse[sparse != 0], kernel[sparse != 0])
    whole = np.abs(kernel.reshape(3, 3, 2, 4, 16))
    assert np.all(np.where(groups != 0, whole, np.inf).min(axis=3) >= np.where(groups == 0, whole, 0).max(axis=3))


def test_clusters_are_nearer_than_any_even_grid_and_zeros_stay():
    values = np.concatenate([np.random.default_rng(0).laplace(0, 1, 5000), np.zeros(700)]).astype(np.float32)
    found = clustered(values, 16)
    assert len(np.unique(found)) <= 17 and np.array_equal(found == 0, values == 0)
    grid = np.linspace(values.min(), values.max(), 16)
    even = grid[np.abs(values[:, None] - grid).argmin(axis=1)]
    assert np.square(found - values).sum() < 0.5 * np.square(even - values)[values != 0].sum()


def test_small_tensors_and_biases_are_left_alone_and_the_config_names_the_others():
    arrays = weights()
    tied = tie(arrays, Ties(8, (1, 4)))
    for path in ("hidden/bias", "out/kernel"):
        assert tied.arrays[path] is arrays[path]
    for path in ("hidden/kernel", "convolution/kernel"):
        assert 2 < len(np.unique(tied.arrays[path])) <= 9 + 2 * 20  # behind the last whole group nothing is zero
        assert f"^{path}$" in tied.config.variables
    assert (tied.config.zeros, tied.config.equal, len(tied.config.variables)) == (True, True, 2)
    assert not tie(arrays, Ties(sparse=(2, 4))).config.equal and not tie(arrays, Ties(8)).config.zeros
    with pytest.raises(ValueError, match="choose fewer values"):
        tie({"hidden/kernel": np.ones((4, 4))}, Ties(256))


@pytest.mark.parametrize(
    ("given", "message"),
    [((1, None), "between 2 and 256"), ((None, "4:4"), "fewer than all"), ((None, "half"), "two numbers")],
)
def test_what_cannot_be_meant_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        request_of([], None, 1, None, 0.9, *given)
