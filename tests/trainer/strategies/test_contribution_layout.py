"""A contribution comes back from its vectors as it went in, whatever its types and sizes."""

import numpy as np
import tensorflow as tf

from trainer.strategies.contribution_layout import ContributionLayout


def test_what_is_joined_and_packed_is_unpacked_again():
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(3, 5)).astype(np.float32),
        rng.normal(size=(200, 100)).astype(np.float32),  # large: travels by itself
        np.int64(7),
        rng.normal(size=(1,)).astype(np.float32),
        rng.integers(0, 9, (130, 130)),
    ]
    tensors = [tf.constant(array) for array in arrays]
    votes = [1.0, 0.0, 1.0]
    layout = ContributionLayout([tf.TensorSpec(t.shape, t.dtype) for t in tensors], len(votes))
    vectors = {dtype: np.full(size, 99, dtype.as_numpy_dtype) for dtype, size in layout.lengths.items()}
    joined = layout.join(tensors)
    assert [t.dtype for t in joined] == [t.dtype for t in layout.empty()]
    layout.pack(joined, votes, vectors)
    assert vectors[tf.float32][layout.extra].tolist() == votes
    unpacked = layout.unpack({dtype: tf.constant(vector) for dtype, vector in vectors.items()})
    for array, tensor in zip(arrays, unpacked, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())
    assert layout.element(vectors, 3, 0) == arrays[3][0]  # type: ignore[arg-type]


def test_large_gradients_end_the_vector():
    specs = [tf.TensorSpec([size]) for size in (20_000, 5, 30_000, 40_000)]  # the last is no gradient
    layout = ContributionLayout(specs, 3, range(3))
    assert layout.large == [slice(layout.num_exact, layout.num_exact + 20_000), slice(60_016, 90_016)]
    assert layout.num_exact == 16 + 40_000 and layout.lengths[tf.float32] == 16 + 40_000 + 20_000 + 30_000
    assert ContributionLayout(specs[1:2], 3, range(1)).num_exact == 16
