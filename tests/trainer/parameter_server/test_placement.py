import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.sessions import small_session
from trainer.parameter_server.placement import PlacedVariable, Placement, owner_of, row_bounds
from trainer.parameter_server.tables import NeededRows, RowModel, tables_of

HERE = "/device:CPU:0"


def test_pieces_are_the_rows_of_the_whole():
    values = np.arange(35, dtype=np.float32).reshape(7, 5)
    placed = PlacedVariable(tf.Variable(values), [HERE] * 3)
    assert [piece.shape[0] for piece in placed.pieces] == [3, 2, 2]
    np.testing.assert_array_equal(placed.numpy(), values)
    np.testing.assert_array_equal(placed.read_value(), values)
    placed.assign(values + 1)
    np.testing.assert_array_equal(placed.numpy(), values + 1)
    np.testing.assert_array_equal(placed.pieces[2].numpy(), values[5:] + 1)


def test_rows_are_divided_equally():
    assert row_bounds(6, 3) == [0, 2, 4, 6]
    assert all(
        max(np.diff(row_bounds(n, p))) - min(np.diff(row_bounds(n, p))) <= 1 for n in range(3, 20) for p in (2, 3)
    )


def test_large_variables_are_divided_and_the_rest_is_balanced():
    placement = Placement(3, min_shard_bytes=400, divides=True)
    large, small = tf.Variable(tf.zeros([10, 10])), tf.Variable(tf.zeros([9, 10]))
    assert [device[-19:] for device in placement.devices_of(large)] == [f"task:{i}/device:CPU:0" for i in range(3)]
    assert {placement.devices_of(small)[0] for _ in range(3)} == set(placement.devices_of(large))
    assert len(placement.devices_of(tf.Variable(tf.zeros([2, 1000])))) == 1, "fewer rows than servers"
    assert len(Placement(3, 400, divides=False).devices_of(large)) == 1
    assert len(Placement(1, 400, divides=True).devices_of(large)) == 1


def test_a_slot_belongs_to_the_weight_with_the_longest_fitting_name():
    weights = {"a/kernel": None, "a/kernel_b": None}
    assert owner_of("adam/a_kernel_momentum", weights) == "a/kernel"
    assert owner_of("adam/a_kernel_b_momentum", weights) == "a/kernel_b"
    assert owner_of("adam/iteration", weights) is None


def two_tables(tied: bool = False, penalty: bool = False) -> keras.Model:
    tokens = keras.Input((5,), dtype="int32")
    one = keras.layers.Embedding(20, 3, name="one", embeddings_regularizer="l2" if penalty else None)
    two = keras.layers.Embedding(10, 2, name="two")
    x = keras.layers.Concatenate()([one(tokens), two(keras.ops.minimum(tokens, 9))])
    x = keras.layers.Dense(3)(x)
    if tied:
        x = keras.ops.matmul(x, keras.ops.transpose(one.embeddings))
    return keras.Model(tokens, x)


def test_only_large_tables_of_which_nothing_but_rows_is_read_travel_by_rows():
    def names(model, least=0):
        return [layer.name for layer in tables_of(model, lambda table: int(table.shape[0] or 0) >= least).values()]

    assert names(two_tables()) == ["one", "two"]
    assert names(two_tables(), least=15) == ["one"]
    assert names(two_tables(penalty=True)) == ["two"]
    assert names(small_session().model) == []


@pytest.mark.parametrize("rising", [False, True], ids=["as they come", "rising"])
@pytest.mark.parametrize("parts", [1, 2], ids=["whole", "in parts"])
def test_a_model_on_rows_answers_as_on_tables_and_its_gradient_is_that_of_the_rows(rising, parts):
    model = two_tables()
    tables = tables_of(model, lambda table: True)
    rows = RowModel(model, tables)
    whole = [v._value.read_value() for v in model.trainable_variables]
    others = [v._value.read_value() for v in model.non_trainable_variables]
    tokens = tf.constant([[3, 3, 0, 19, 7], [7, 1, 1, 1, 1]])

    @tf.function
    def on_rows():
        dense = {i: value for i, value in enumerate(whole) if i not in tables}
        needed = rows.needed(dense, others, tokens, lambda number: rising)
        values = [tf.gather(value, needed[i].ids) if i in needed else value for i, value in enumerate(whole)]
        with tf.GradientTape() as tape, rows.with_rows(needed):
            tape.watch(values)
            each = [
                rows.stateless_call(values, others, part, training=True)[0]  # type: ignore[misc]
                for part in tf.split(tokens, parts)
            ]
            outputs = tf.concat(each, 0)
            loss = tf.reduce_sum(outputs**2)
        ids = {number: one.ids for number, one in needed.items()}
        return outputs, ids, [tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]

    with tf.GradientTape() as tape:
        tape.watch(whole)
        expected, _ = model.stateless_call(whole, others, tokens, training=True)  # type: ignore[misc]
        loss = tf.reduce_sum(expected**2)
    outputs, ids, gradients = on_rows()
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    for i, gradient in enumerate(tape.gradient(loss, whole)):
        full = tf.convert_to_tensor(gradient)
        if i in tables:
            found = ids[i].numpy().tolist()
            assert sorted(found) == ([0, 1, 3, 7, 19] if tables[i].name == "one" else [0, 1, 3, 7, 9])
            assert (found == sorted(found)) == rising
            assert gradients[i].shape[0] == 5, "no row that the batch does not look up"
            full = tf.gather(full, ids[i])
        np.testing.assert_allclose(gradients[i], full, rtol=1e-5, atol=1e-6)


def test_a_look_up_that_was_not_foreseen_is_an_error_and_never_another_row():
    model = two_tables()
    tables = tables_of(model, lambda table: True)
    rows = RowModel(model, tables)
    whole = [v._value.read_value() for v in model.trainable_variables]
    values = [value[:2] if i in tables else value for i, value in enumerate(whole)]
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match=r"set strategy\.min_shard_bytes"),
        rows.with_rows({i: NeededRows(tf.constant([3, 7], tf.int64), []) for i in tables}),
    ):
        rows.stateless_call(values, [], tf.constant([[3, 3, 3, 5, 7]]))
