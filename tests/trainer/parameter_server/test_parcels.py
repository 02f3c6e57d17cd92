import numpy as np
import pytest
import tensorflow as tf

from trainer.parameter_server.packed_batch import layout_of, pack, unpack
from trainer.parameter_server.parcels import Item, Parcels, read_together

ONE, OTHER = "/job:ps/task:0", "/job:ps/task:1"


def test_small_tensors_of_one_server_and_type_travel_together_and_come_back_in_order():
    shapes = {ONE: [(3, 2), (), (4,)], OTHER: [(1, 5)]}
    items = [Item(server, tf.float32, shape) for server, each in shapes.items() for shape in each]
    items[1:1] = [Item(ONE, tf.int64, (2,)), Item(ONE, tf.float32, (1 << 14, 2)), Item(ONE, tf.float32, None)]
    rng = np.random.default_rng(0)
    values = [
        tf.constant(rng.integers(-9, 9, (7,) if item.shape is None else item.shape), item.dtype) for item in items
    ]
    parcels = Parcels(items)
    wrapped = parcels.wrap(values)
    assert [numbers for _, numbers in parcels.groups] == [[0, 4, 5], [1], [2], [3], [6]]
    assert [server for server, _ in parcels.groups] == [ONE, ONE, ONE, ONE, OTHER]
    assert [parcel.shape.num_elements() for parcel in wrapped] == [11, 2, 1 << 15, 7, 5]
    back = parcels.in_order([parcels.unwrapped(number, parcel) for number, parcel in enumerate(wrapped)])
    for value, expected in zip(back, values, strict=True):
        assert value.shape == expected.shape and value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)


def test_variables_are_read_together_with_the_values_that_they_have_then():
    variables = [tf.Variable(tf.fill([size, 2], float(size)), name="piece") for size in (1, 3)]
    variables.append(tf.Variable(7, name="count"))
    read = tf.function(lambda: read_together(variables))
    assert [value.numpy().tolist() for value in read()] == [[[1.0, 1.0]], [[3.0, 3.0]] * 3, 7]
    variables[0].assign([[5.0, 6.0]])
    assert read()[0].numpy().tolist() == [[5.0, 6.0]]
    joins = [operation.type for operation in read.get_concrete_function().graph.get_operations()]
    assert joins.count("ConcatV2") == 1


@pytest.mark.parametrize("size", [1, 5])
def test_a_batch_comes_back_from_its_bytes_whatever_its_types(size):
    rng = np.random.default_rng(1)
    batch = {
        "image": tf.constant(rng.integers(0, 256, (size, 3, 3)), tf.uint8),
        "is_new": tf.constant(rng.integers(0, 2, size), tf.bool),
        "ids": tf.constant(rng.integers(-9, 9, (size, 2)), tf.int32),
        "text": tf.constant([f"text {i}" for i in range(size)]),
        "half": tf.constant(rng.normal(size=(size, 3)), tf.bfloat16),
        "label": tf.constant(rng.normal(size=size), tf.float32),
        "nothing": tf.zeros([size, 0]),
    }
    layout = layout_of(batch)
    packed, others = pack(batch, (1 << 40, 3))
    assert packed.dtype == tf.uint8 and others.keys() == {"text"}
    back, position = tf.function(lambda packed, others: unpack(layout, packed, others))(packed, others)
    assert list(back) == list(batch) and position.numpy().tolist() == [1 << 40, 3]
    for name, value in batch.items():
        assert back[name].dtype == value.dtype and back[name].shape == value.shape
        was, found = np.asarray(value), np.asarray(back[name])
        assert found.tolist() == was.tolist() if name == "text" else found.tobytes() == was.tobytes(), name
