import gc
import threading

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.block_reader import BlockReader

BLOCK_STEPS = 4


def reader_of(num_blocks: int, block_steps: int = BLOCK_STEPS) -> BlockReader:
    values = tf.data.Dataset.range(num_blocks * block_steps).batch(block_steps)
    return BlockReader(values.map(lambda steps: {"x": steps}), block_steps)


def num_threads() -> int:
    return sum(thread.name == "block-reader" for thread in threading.enumerate())


def test_steps_come_in_order_and_never_span_two_blocks():
    reader = reader_of(3)
    seen, lengths = [], []
    for most_steps in (3, 3, 10, 1, 2, 5):
        block, first, num_steps = reader.take(most_steps)
        seen.extend(block["x"][first : first + num_steps].numpy())
        lengths.append(num_steps)
    assert seen == list(range(12))
    assert lengths == [3, 1, 4, 1, 2, 1]
    reader.close()


def test_the_first_block_may_be_begun_within():
    values = tf.data.Dataset.range(12).batch(BLOCK_STEPS)
    reader = BlockReader(values.map(lambda steps: {"x": steps}), BLOCK_STEPS, first=3)
    assert [reader.take(10)[1:] for _ in range(2)] == [(3, 1), (0, 4)]
    reader.close()


def test_the_end_and_an_error_reach_the_caller_each_time_it_asks():
    reader = reader_of(1)
    reader.take(BLOCK_STEPS)
    for _ in range(2):
        with pytest.raises(StopIteration):
            reader.take(1)
    broken = tf.data.Dataset.range(1).map(lambda x: {"x": tf.debugging.check_numerics(tf.math.log(-1.0), "broken")})
    reader = BlockReader(broken, 1)
    for _ in range(2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="broken"):
            reader.take(1)


def test_the_wait_is_measured_and_nothing_is_waited_for_within_a_block():
    reader = reader_of(2)
    reader.take(1)
    waited_s = reader.waited_s
    assert waited_s > 0
    reader.take(BLOCK_STEPS)
    assert reader.waited_s == waited_s
    reader.close()


def test_the_thread_ends_with_its_reader():
    before = num_threads()
    reader = reader_of(3)
    reader.take(1)
    assert num_threads() == before + 1
    reader.close()
    assert num_threads() == before

    abandoned = reader_of(3)
    thread = abandoned._thread
    del abandoned
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_a_reader_that_is_abandoned_lets_nobody_wait_for_what_it_still_fetches(monkeypatch):
    may_end = threading.Event()

    def read(number: tf.Tensor) -> tf.Tensor:
        def wait() -> np.int64:
            may_end.wait(60)
            return np.int64(0)

        return tf.numpy_function(wait, [], tf.int64) + number

    reader = BlockReader(tf.data.Dataset.range(2).map(lambda i: {"x": tf.reshape(read(i), [1])}), 1)
    with monkeypatch.context() as patch:
        patch.setattr(reader._thread, "join", lambda *_: pytest.fail("it waits for the thread"))
        reader.abandon()
    assert reader._thread.is_alive()
    may_end.set()
    reader.close()
    assert not reader._thread.is_alive()
