import numpy as np
import pytest
import tensorflow as tf

from trainer.step.state_tensors import Contribution
from trainer.strategies.packed_contribution import PackedContribution
from trainer.strategies.strategy import NUM_VOTES

VOTES = [float(i % 2) for i in range(NUM_VOTES)]


def contribution(factor=1.0):
    gradients = (tf.fill([2, 3], 0.5 * factor), tf.constant(1.5 * factor), tf.fill([4], 2.0 * factor))
    statistics = (tf.fill([3], 0.25 * factor), tf.constant(int(factor), tf.int64))
    return Contribution(gradients, statistics, tf.constant([7.0 * factor, 2.0, 3.0]))


@pytest.mark.parametrize("sent_as", [None, tf.float16], ids=["as it is", "float16"])
def test_what_was_packed_and_added_up_comes_out_in_its_place(sent_as):
    packed = PackedContribution(sent_as)
    vectors = packed.pack(contribution(), tf.constant(VOTES))
    assert {v.dtype for v in vectors} == {tf.float32, tf.int64, *([sent_as] if sent_as else [])}
    sums = [vector * 2 for vector in vectors]
    found, expected = packed.unpack(sums), contribution(2.0)._replace(sums=tf.constant([14.0, 4.0, 6.0]))
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(packed.votes(sums), 2 * np.array(VOTES))


def test_the_verdict_sees_every_gradient_statistic_and_the_loss_but_no_vote():
    packed = PackedContribution(tf.float16)
    vectors = packed.pack(contribution(), tf.constant([np.nan] * NUM_VOTES))
    verdict = packed.verdict(vectors)
    seen = np.concatenate([np.ravel(piece) for piece in verdict.statistics])
    expected = [np.ravel(t) for t in (*contribution().gradients, contribution().statistics[0])]
    assert sorted(seen) == sorted(np.concatenate(expected))
    np.testing.assert_array_equal(verdict.sums, [7.0])


def test_the_layout_found_by_a_compiled_half_serves_the_other():
    packed = PackedContribution()
    first = tf.function(lambda factor: packed.pack(contribution(), tf.constant(VOTES)), jit_compile=True)
    second = tf.function(packed.unpack, jit_compile=True)
    found = second(first(tf.constant(1.0)))
    tf.nest.map_structure(np.testing.assert_array_equal, found, contribution())
