import numpy as np
import pytest
import tensorflow as tf

from trainer.data import memory
from trainer.data.checks import DataError
from trainer.data.memory import MemorySource, numbered
from trainer.data.source import Feature, Schema, SkippedRecords


def test_reads_rows_in_the_order_asked_for():
    schema = Schema({"x": Feature((2,), "float32"), "label": Feature((), "int32")}, "label", 4, 4)
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    source = MemorySource(schema, {"x": x, "label": np.arange(4)}, numbered("set"))
    batch = source.read(tf.constant([3, 0, 3], tf.int64))
    assert np.array_equal(batch["x"], x[[3, 0, 3]])
    assert batch["label"].numpy().tolist() == [3, 0, 3] and batch["label"].dtype == tf.int32
    assert source.locate(2) == "set, row 2"


def test_scalar_columns_of_mixed_types_come_back_under_their_names():
    schema = Schema(
        {
            "a": Feature((), "float32"),
            "b": Feature((), "int32"),
            "c": Feature((), "float32"),
            "d": Feature((), "int32"),
        },
        None,
        3,
    )
    arrays = {name: np.arange(3) + 10 * i for i, name in enumerate("abcd")}
    batch = MemorySource(schema, arrays, numbered("set")).read(tf.constant([2, 1], tf.int64))
    assert {name: values.numpy().tolist() for name, values in batch.items()} == {
        "a": [2, 1],
        "b": [12, 11],
        "c": [22, 21],
        "d": [32, 31],
    }
    assert [batch[name].dtype.name for name in "abcd"] == ["float32", "int32", "float32", "int32"]


def test_bytes_and_floats_in_memory_give_the_same_image(monkeypatch):
    schema = Schema({"image": Feature((16, 16, 1), "float32")}, None, 1)
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    index = tf.constant([0], tf.int64)
    as_floats = MemorySource(schema, {"image": image}, numbered("set")).read(index)["image"]
    monkeypatch.setattr(memory, "LARGEST_FLOAT_COPY", 100)
    as_bytes = MemorySource(schema, {"image": image}, numbered("set")).read(index)["image"]
    assert as_bytes.dtype == as_floats.dtype == tf.float32
    assert np.array_equal(as_bytes, as_floats)
    assert float(tf.reduce_max(as_bytes)) == 1.0


def test_bad_samples_are_left_out_and_listed():
    schema = Schema({"x": Feature((), "float32"), "label": Feature((), "int32")}, "label", 4, 2)
    arrays = {"x": np.array([0, np.nan, 2, 3]), "label": np.array([0, 1, 7, 1])}
    rows = np.array([10, 11, 12, 13])
    source = MemorySource(schema, arrays, numbered("set", rows, "image"), skipped=SkippedRecords(2))
    assert source.schema.num_samples == 2
    assert source.read(tf.constant([0, 1], tf.int64))["x"].numpy().tolist() == [0, 3]
    assert source.locate(1) == "set, image 13"
    assert [(record.record, record.rule) for record in source.skipped.records()] == [
        ("image 11", "feature 'x' holds NaN"),
        ("image 12", "label 'label' is 7, which is not in 0..1"),
    ]
    with pytest.raises(
        DataError, match=r"set, image 12: label 'label' is 7, .* data.skip_bad_records=1 allows were left out"
    ):
        MemorySource(schema, arrays, numbered("set", rows, "image"), skipped=SkippedRecords(1))


def test_nothing_but_bad_samples_is_an_error():
    schema = Schema({"x": Feature((), "float32")}, None, 1)
    with pytest.raises(DataError, match="every sample in it is bad"):
        MemorySource(schema, {"x": np.array([np.inf])}, numbered("set"), skipped=SkippedRecords(9))
