from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.data.record_writer import encode_example, write_shards


def test_tensorflow_reads_what_it_writes(tmp_path: Path) -> None:
    payloads = [b"", b"a", b"b" * 100_000, b"c"]
    paths = write_shards(tmp_path, "train", payloads, num_shards=3)
    assert [path.name for path in paths] == [f"train-0000{i}-of-00003.tfrecord" for i in range(3)]
    read = [list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) for path in paths]
    assert read == [[b"", b"c"], [b"a"], [b"b" * 100_000]]


def test_examples_hold_what_they_were_given() -> None:
    values = {"i": 7, "f": [0.5, 2.0], "b": b"\0x\0", "t": "é", "a": np.arange(4).reshape(2, 2), "l": [b"p", b"q"]}
    held = tf.train.Example.FromString(encode_example(values)).features.feature
    assert list(held["i"].int64_list.value) == [7]
    assert list(held["f"].float_list.value) == [0.5, 2.0]
    assert list(held["b"].bytes_list.value) == [b"\0x\0"]
    assert list(held["t"].bytes_list.value) == ["é".encode()]
    assert list(held["a"].int64_list.value) == [0, 1, 2, 3]
    assert list(held["l"].bytes_list.value) == [b"p", b"q"]


def test_equal_samples_have_equal_bytes() -> None:
    names = [f"feature {i}" for i in range(20)]
    forward = encode_example({name: 1 for name in names})
    assert forward == encode_example({name: 1 for name in reversed(names)})


def test_a_value_without_a_type_is_refused() -> None:
    with pytest.raises(ValueError, match="feature 'z' is of type complex128"):
        encode_example({"z": np.asarray(1j)})


def test_an_interrupted_write_leaves_no_shard(tmp_path: Path) -> None:
    def payloads():
        yield b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, "train", payloads())
    assert list(tmp_path.iterdir()) == []
