import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.order import SMALLEST_CIPHER, SampleOrder


def epoch_of(order: SampleOrder, epoch: int) -> np.ndarray:
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    return np.concatenate([order.sample_ids(step) for step in steps])


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5, 7, 64, 101, 2047, 2048, 2053, 4000, 65_536, 65_537, 65_539])
@pytest.mark.parametrize("epoch", [0, 2**33])
def test_every_epoch_is_a_permutation(num_samples, epoch):
    order = SampleOrder(num_samples, num_samples, seed=3)
    index, weight = order.batches(epoch, 1)
    assert np.array_equal(np.sort(index.numpy()[0]), np.arange(num_samples))
    assert weight.numpy().all()


@settings(max_examples=40, deadline=None)
@given(
    num_samples=st.integers(1, 3000),
    batch_size=st.integers(200, 3500),
    remainder=st.sampled_from(["pad", "keep", "drop"]),
    seed=st.integers(-(2**63), 2**64),
    shuffle=st.booleans(),
)
def test_every_sample_once_an_epoch(num_samples, batch_size, remainder, seed, shuffle):
    if remainder == "drop":
        batch_size = min(batch_size, num_samples)
    order = SampleOrder(num_samples, batch_size, seed, shuffle, remainder)
    for epoch in (0, 1):
        seen = epoch_of(order, epoch)
        assert len(np.unique(seen)) == len(seen)
        left_out = num_samples % batch_size if remainder == "drop" else 0
        assert len(seen) == num_samples - left_out
        assert seen.min() >= 0 and seen.max() < num_samples


@pytest.mark.parametrize("num_samples", [100, 2500])
def test_orders_differ_by_epoch_and_seed(num_samples):
    def first_epoch(seed: int, epoch: int = 0) -> np.ndarray:
        return epoch_of(SampleOrder(num_samples, num_samples, seed), epoch)

    orders = [
        first_epoch(0),
        first_epoch(1),
        first_epoch(256),
        first_epoch(2**32),
        first_epoch(-1),
        first_epoch(0, epoch=1),
    ]
    for i, one in enumerate(orders):
        for other in orders[i + 1 :]:
            assert np.mean(one == other) < 0.1
    assert np.array_equal(first_epoch(7), first_epoch(7))


@pytest.mark.parametrize("num_samples", [400, 4000, 60_000])
def test_epochs_do_not_resemble_each_other(num_samples):
    order = SampleOrder(num_samples, num_samples, seed=42)
    epochs = order.batches(0, 6)[0].numpy().astype(float)
    correlation = np.corrcoef(np.concatenate([epochs, [np.arange(num_samples)]]))
    # The correlation of random orders has standard deviation 1 / sqrt(N).
    assert np.abs(correlation - np.eye(7)).max() < 5 / np.sqrt(num_samples)


def test_batches_are_random_draws():
    # Sorted by class, as many sets are: the classes in a batch must vary as in a draw without replacement.
    order = SampleOrder(60_000, 60_000, seed=1)
    classes = order.batches(0, 1)[0].numpy().reshape(-1, 32) // 6000
    counts = (classes[:, :, None] == np.arange(10)).sum(axis=1)
    assert counts.var(axis=0).mean() == pytest.approx(32 * 0.1 * 0.9, rel=0.06)


def test_unshuffled_is_the_order_of_the_source():
    order = SampleOrder(5, 2, shuffle=False)
    assert [order.sample_ids(step).tolist() for step in range(4)] == [[0, 1], [2, 3], [4], [0, 1]]


def test_padding_has_weight_zero_and_valid_indices():
    order = SampleOrder(5, 4, seed=2)
    index, weight = order.batch(tf.constant(1, tf.int64))
    assert weight.numpy().tolist() == [1, 0, 0, 0]
    assert index.shape == (4,) and index.numpy().max() < 5
    assert order.weighted and not SampleOrder(8, 4).weighted


def test_keep_shortens_only_the_last_batch():
    order = SampleOrder(5, 4, remainder="keep")
    assert [len(order.batch(tf.constant(step, tf.int64))[0]) for step in range(3)] == [4, 1, 4]


@pytest.mark.parametrize("num_samples", [1000, 3000])
@pytest.mark.parametrize("first_step", [0, 31, 93, 2**31 - 1, 2**40])
def test_graph_and_eager_and_blocks_agree(num_samples, first_step):
    order = SampleOrder(num_samples, 32, seed=5)
    together = order.batches(first_step, 5)[0].numpy()
    in_graph = tf.function(order.batch)
    for row, step in enumerate(range(first_step, first_step + 5)):
        assert np.array_equal(together[row], in_graph(tf.constant(step, tf.int64))[0].numpy())
        assert np.array_equal(together[row], order.batch(tf.constant(step, tf.int64))[0].numpy())


def test_static_batch_dimension():
    spec = tf.function(SampleOrder(1000, 32).batch).get_concrete_function(tf.TensorSpec([], tf.int64))
    assert [output.shape for output in spec.outputs] == [(32,), (32,)]


def test_small_and_large_sets_use_both_mechanisms():
    assert 2047 < SMALLEST_CIPHER <= 2048


def test_drop_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match=r"data.batch_size=8 is more than the 5 samples: set data.batch_size to"):
        SampleOrder(5, 8, remainder="drop")
    with pytest.raises(ValueError, match="at least 1"):
        SampleOrder(0, 8)
