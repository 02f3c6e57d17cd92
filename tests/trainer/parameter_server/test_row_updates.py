import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.parameter_server.test_cluster import TOKENS
from tests.trainer.sessions import merged, small_session
from trainer.parameter_server.row_updates import RowUpdates, of_rows, read, write
from trainer.step.state_tensors import Contribution, StateTensors

ROWS = np.array([1, 4, 7, 30])
ADAGRAD, SGD = {"name": "adagrad", "clip_norm": 0.5}, {"name": "sgd", "momentum": 0}


@pytest.mark.parametrize("optimizer", [ADAGRAD, SGD], ids=["adagrad", "sgd"])
def test_the_rows_alone_become_what_they_become_in_the_whole_table(optimizer):
    session = small_session(**merged(TOKENS, {"optimizer": optimizer, "strategy": {"name": "one_device"}}))
    apply, state = session.step.apply, session.state.placed
    updates, rng = RowUpdates(apply), np.random.default_rng(0)
    table = next(i for i, v in enumerate(session.model.trainable_variables) if v.path == "one/embeddings")
    shapes = [variable.shape for variable in state.trainable]
    values = [rng.normal(size=shape).astype("float32") for shape in shapes]
    values[table] = values[table][: len(ROWS)]
    # A sum of zeros has a sign, too: -0 - 0 is -0, and -0 + 0 is 0.
    values[table][:2] = 0.0
    zeros = np.broadcast_to(np.array([[-0.0], [0.0]], "float32"), (2, shapes[table][1]))
    state.trainable[table].scatter_update(tf.IndexedSlices(zeros, ROWS[:2]))
    sums = tf.ones([apply.window.metrics.size])

    @tf.function
    def updated(ids: tf.Tensor, of_table: tf.Tensor, alone: bool) -> StateTensors:
        gradients = [tf.constant(value) for value in values]
        gradients[table] = tf.IndexedSlices(of_table, ids, tf.constant(shapes[table].as_list(), tf.int64))
        total = Contribution(tuple(gradients), (), sums)
        rows = updates.rows(total) if alone else {}
        assert rows.keys() == ({table} if alone else set())
        places = updates.places(state, rows)
        old = read(state, places)
        with updates.expecting(rows):
            new = apply(old, of_rows(total, rows), []).state
        if alone:
            write(state, places, old, new)
            assert sum(place is not None for place in places.optimizer) == (optimizer["name"] == "adagrad")
        return new

    specs = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, *shapes[table][1:]], tf.float32)
    before = state.trainable[table].numpy()
    whole = updated.get_concrete_function(*specs, False)(tf.constant(ROWS), tf.constant(values[table]))
    updated.get_concrete_function(*specs, True)(tf.constant(ROWS), tf.constant(values[table]))
    for variable, expected in zip(tf.nest.flatten(state), tf.nest.flatten(whole), strict=True):
        assert variable.numpy().tobytes() == expected.numpy().tobytes()
    after = state.trainable[table].numpy()
    assert (after[ROWS[2:]] != before[ROWS[2:]]).all()
    untouched = np.delete(np.arange(len(before)), ROWS)
    np.testing.assert_array_equal(after[untouched], before[untouched])


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"name": "adam"}},
        {"optimizer": {"name": "sgd"}},
        {"optimizer": {**ADAGRAD, "weight_decay": 0.1}},
        {"optimizer": ADAGRAD, "train": {"ema": 0.9}},
    ],
    ids=["adam", "momentum", "decay", "average"],
)
def test_whatever_moves_other_rows_too_gets_the_whole_table(change):
    apply = small_session(**merged(TOKENS, {**change, "strategy": {"name": "one_device"}})).step.apply
    gradient = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([0], tf.int64))
    assert RowUpdates(apply).rows(Contribution((gradient,), (), tf.ones([2]))) == {}  # type: ignore[arg-type]
